#include "gateway/coordinator_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/client_stream.h"
#include "net/status_codec.h"
#include "proto/control_codec.h"
#include "sauva/v1/control.grpc.pb.h"

namespace sauva {
namespace {

// A call with one answer; gRPC fills it, the caller may cancel it.
template <class Request, class Response>
struct UnaryCall final : PendingCall {
  void Cancel() override { context.TryCancel(); }
  grpc::ClientContext context;
  Request request;
  Response response;
};

absl::Status Named(const std::string& address, const grpc::Status& status) {
  const absl::Status plain = FromGrpc(status);
  return {plain.code(), absl::StrCat("coordinator at ", address, ": ", plain.message())};
}

// Puts the chunks of a model's files together again.
class FileAssembler {
 public:
  // Returns false when there is too much.
  bool Add(const v1::ModelFileChunk& chunk) {
    if (chunk.has_model()) fetched_.model = {chunk.model().name(), chunk.model().digest()};
    num_bytes_ += chunk.data().size();
    if (num_bytes_ > kMaxFetchedBytes) return false;
    if (!chunk.name().empty()) fetched_.files[chunk.name()] += chunk.data();
    return true;
  }
  absl::StatusOr<FetchedModel> Take() {
    if (num_bytes_ > kMaxFetchedBytes) {
      return absl::ResourceExhaustedError(absl::StrCat("the files of model ", fetched_.model.name,
                                                       " exceed ", kMaxFetchedBytes, " bytes"));
    }
    return std::move(fetched_);
  }

 private:
  FetchedModel fetched_;
  size_t num_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorClient>> CoordinatorClient::Create(
    const std::string& address, const TlsOptions& tls) {
  std::shared_ptr<grpc::Channel> channel;
  ASSIGN_OR_RETURN(channel, MakeChannel(address, tls));
  return std::unique_ptr<CoordinatorClient>(new CoordinatorClient(address, std::move(channel)));
}

std::shared_ptr<PendingCall> CoordinatorClient::Dispatch(
    const DispatchRequest& request, absl::Time deadline,
    std::function<void(absl::StatusOr<DispatchReply>)> on_reply) {
  auto call = std::make_shared<UnaryCall<v1::DispatchRequest, v1::DispatchResponse>>();
  ToProto(request, &call->request);
  call->context.set_deadline(absl::ToChronoTime(deadline));
  const auto stub = v1::CoordinatorService::NewStub(channel_);
  stub->async()->Dispatch(
      &call->context, &call->request, &call->response,
      [call, address = address_, on_reply = std::move(on_reply)](const grpc::Status& status) {
        if (!status.ok()) return on_reply(Named(address, status));
        on_reply(FromProto(call->response));
      });
  return call;
}

void CoordinatorClient::Status(absl::Time deadline,
                               std::function<void(absl::StatusOr<ClusterStatus>)> on_reply) {
  auto call = std::make_shared<UnaryCall<v1::StatusRequest, v1::StatusResponse>>();
  call->context.set_deadline(absl::ToChronoTime(deadline));
  const auto stub = v1::CoordinatorService::NewStub(channel_);
  stub->async()->Status(
      &call->context, &call->request, &call->response,
      [call, address = address_, on_reply = std::move(on_reply)](const grpc::Status& status) {
        if (!status.ok()) return on_reply(Named(address, status));
        on_reply(FromProto(call->response));
      });
}

void CoordinatorClient::GetModelFiles(const std::string& model, absl::Time deadline,
                                      std::function<void(absl::StatusOr<FetchedModel>)> on_reply) {
  auto stream = ClientReader<v1::ModelFileChunk>::Make();
  stream->context().set_deadline(absl::ToChronoTime(deadline));
  v1::GetModelFilesRequest request;
  request.set_model(model);
  const auto stub = v1::CoordinatorService::NewStub(channel_);
  stub->async()->GetModelFiles(&stream->context(), &request, stream->reactor());
  // Shared: by the two handlers.
  auto assembler = std::make_shared<FileAssembler>();
  stream->Start(stream, {.on_message =
                             [assembler, raw = stream.get()](v1::ModelFileChunk chunk) {
                               if (!assembler->Add(chunk)) raw->Cancel();
                             },
                         .on_closed =
                             [assembler, address = address_,
                              on_reply = std::move(on_reply)](const grpc::Status& status) {
                               absl::StatusOr<FetchedModel> fetched = assembler->Take();
                               if (fetched.ok() && !status.ok())
                                 return on_reply(Named(address, status));
                               on_reply(std::move(fetched));
                             }});
}

}  // namespace sauva
