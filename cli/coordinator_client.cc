#include "cli/coordinator_client.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/status_codec.h"
#include "proto/control_codec.h"
#include "sauva/v1/control.grpc.pb.h"

namespace sauva {

absl::StatusOr<ClusterStatus> FetchClusterStatus(const std::string& address, const TlsOptions& tls,
                                                 absl::Duration timeout) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(address, tls));
  const auto stub = v1::CoordinatorService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  v1::StatusResponse response;
  if (const grpc::Status status = stub->Status(&context, {}, &response); !status.ok()) {
    return absl::Status(FromGrpc(status).code(),
                        absl::StrCat("coordinator ", address, ": ", status.error_message()));
  }
  return FromProto(response);
}

}  // namespace sauva
