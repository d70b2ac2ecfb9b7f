#include "gateway/head_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "base/status_macros.h"
#include "net/channel.h"
#include "net/client_stream.h"
#include "net/status_codec.h"
#include "net/traceparent.h"
#include "proto/generation_codec.h"
#include "sauva/v1/stage.grpc.pb.h"

namespace sauva {
namespace {

// Connections to heads kept for the next request; those of dead workers fall off the end.
constexpr size_t kMaxChannels = 64;

// Shared: by the handlers of one stream and whoever may cancel it.
class HeadCall final : public PendingCall {
 public:
  explicit HeadCall(HeadClient::Handlers handlers)
      : stream_(ClientReader<v1::SequenceTokens>::Make()), handlers_(std::move(handlers)) {}

  void Cancel() override { stream_->Cancel(); }

  // After the stub was told of the stream's context and reactor.
  static void Start(const std::shared_ptr<HeadCall>& call);

  ClientReader<v1::SequenceTokens>& stream() { return *stream_; }

 private:
  void OnMessage(const v1::SequenceTokens& message) {
    if (!fault_.ok()) return;
    absl::StatusOr<SequenceTokens> tokens = FromProto(message);
    if (tokens.ok()) return handlers_.on_tokens(*std::move(tokens));
    fault_ = absl::InternalError(tokens.status().message());
    Cancel();
  }
  void OnClosed(const grpc::Status& status) {
    handlers_.on_ended(fault_.ok() ? FromGrpc(status) : fault_);
  }

  const std::shared_ptr<ClientReader<v1::SequenceTokens>> stream_;
  const HeadClient::Handlers handlers_;
  absl::Status fault_;
};

void HeadCall::Start(const std::shared_ptr<HeadCall>& call) {
  call->stream_->Start(call->stream_,
                       {.on_message = [call](const v1::SequenceTokens& m) { call->OnMessage(m); },
                        .on_closed = [call](const grpc::Status& s) { call->OnClosed(s); }});
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> HeadClient::ChannelTo(const std::string& address) {
  const auto found = std::find_if(channels_.begin(), channels_.end(),
                                  [&](const auto& entry) { return entry.first == address; });
  if (found != channels_.end()) {
    channels_.splice(channels_.begin(), channels_, found);
    return channels_.front().second;
  }
  std::shared_ptr<grpc::Channel> channel;
  ASSIGN_OR_RETURN(channel, MakeChannel(address, tls_));
  channels_.emplace_front(address, channel);
  if (channels_.size() > kMaxChannels) channels_.pop_back();
  return channel;
}

absl::StatusOr<std::shared_ptr<PendingCall>> HeadClient::Open(const std::string& address,
                                                              const SequenceRequest& request,
                                                              absl::Time deadline,
                                                              const std::string& traceparent,
                                                              Handlers handlers) {
  std::shared_ptr<grpc::Channel> channel;
  ASSIGN_OR_RETURN(channel, ChannelTo(address));
  auto call = std::make_shared<HeadCall>(std::move(handlers));
  v1::SequenceRequest message;
  ToProto(request, &message);
  call->stream().context().set_deadline(absl::ToChronoTime(deadline));
  if (!traceparent.empty()) call->stream().context().AddMetadata(kTraceparentKey, traceparent);
  v1::WorkerService::NewStub(channel)->async()->Generate(&call->stream().context(), &message,
                                                         call->stream().reactor());
  HeadCall::Start(call);
  return call;
}

}  // namespace sauva
