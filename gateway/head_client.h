#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/coordinator_client.h"
#include "net/tls.h"
#include "proto/generation.h"

namespace sauva {

// Streams from the heads of pipelines.
// Thread: its owner's; handlers run on gRPC's threads, one at a time.
class HeadClient {
 public:
  struct Handlers {
    std::function<void(SequenceTokens)> on_tokens;
    std::function<void(const absl::Status&)> on_ended;  // once, last
  };

  explicit HeadClient(TlsOptions tls) : tls_(std::move(tls)) {}

  // Opens one sample's stream, with a traceparent unless it is empty. A message that makes no sense
  // ends it with INTERNAL. Errors: as MakeChannel. Shared: the session's owner holds the call to
  // cancel it, gRPC until it has ended.
  absl::StatusOr<std::shared_ptr<PendingCall>> Open(const std::string& address,
                                                    const SequenceRequest& request,
                                                    absl::Time deadline,
                                                    const std::string& traceparent,
                                                    Handlers handlers);

 private:
  absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& address);

  const TlsOptions tls_;
  // Latest used first. Shared with the calls that run on them.
  std::list<std::pair<std::string, std::shared_ptr<grpc::Channel>>> channels_;
};

}  // namespace sauva
