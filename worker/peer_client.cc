#include "worker/peer_client.h"

#include <functional>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "net/channel.h"
#include "net/client_stream.h"
#include "net/status_codec.h"
#include "proto/stage_codec.h"
#include "sauva/v1/stage.grpc.pb.h"

namespace sauva {
namespace {

// Opens, closes and headers for all sequences of several steps; frames of as many steps as
// a long pipeline has in flight.
constexpr size_t kMaxWaitingControl = 1 << 15;
constexpr size_t kMaxWaitingFrames = 1 << 12;

// False for what makes no sense or finds no room.
bool TakeReply(WorkerLoop& loop, OutgoingId id, const v1::ControlReply& message) {
  absl::StatusOr<ControlReply> reply = FromProto(message);
  if (!reply.ok()) return false;
  if (auto* hello = std::get_if<StageHello>(&*reply)) {
    return loop.Offer(OutgoingAccepted{id, std::move(*hello)});
  }
  if (auto* result = std::get_if<StepResult>(&*reply)) {
    return loop.Offer(OutgoingReply{id, std::move(*result)});
  }
  return loop.Offer(OutgoingReply{id, std::get<StageFault>(*std::move(reply))});
}

using LinkStream = ClientStream<v1::HiddenFrame, v1::LinkReply>;

// What follows on a Link's stream after its hello.
struct LinkHandlers {
  std::function<void(const StageHello&)> on_accepted;
  std::function<void(const grpc::Status&)> on_closed;
};

std::shared_ptr<LinkStream> OpenLink(const std::shared_ptr<grpc::Channel>& channel,
                                     const OpenOutgoing& open, LinkHandlers handlers) {
  auto stream = LinkStream::Make(kMaxWaitingFrames);
  v1::WorkerService::NewStub(channel)->async()->Link(&stream->context(), stream->reactor());
  stream->Start(
      stream,
      {.on_message = [on_accepted = std::move(handlers.on_accepted)](
                         const v1::LinkReply& reply) { on_accepted(FromProto(reply.hello())); },
       .on_closed = std::move(handlers.on_closed)});
  v1::HiddenFrame hello;
  ToProto(open.hello, hello.mutable_hello());
  stream->Send(std::move(hello));
  return stream;
}

}  // namespace

class PeerClient::ControlCall {
 public:
  ControlCall(PeerClient& owner, const std::shared_ptr<grpc::Channel>& channel,
              const OpenOutgoing& open)
      : stream_(Stream::Make(kMaxWaitingControl)) {
    v1::WorkerService::NewStub(channel)->async()->Control(&stream_->context(), stream_->reactor());
    stream_->Start(
        stream_,
        {.on_message =
             [&owner, id = open.id, weak = std::weak_ptr(stream_)](const v1::ControlReply& reply) {
               if (TakeReply(owner.loop_, id, reply)) return;
               if (const auto stream = weak.lock()) stream->Cancel();
             },
         .on_closed = [&owner, id = open.id](
                          const grpc::Status& status) { owner.OnClosed(id, FromGrpc(status)); }});
    stream_->Send(ToProto(ControlMessage(open.hello)));
  }

  bool Send(const StageMessage& message) {
    if (const auto* open = std::get_if<OpenSequence>(&message)) return SendOne(*open);
    if (const auto* close = std::get_if<CloseSequence>(&message)) return SendOne(*close);
    return SendOne(std::get<StepHeader>(message));
  }
  void End() { stream_->End(); }
  void Cancel() { stream_->Cancel(); }

 private:
  using Stream = ClientStream<v1::ControlMessage, v1::ControlReply>;

  bool SendOne(const ControlMessage& message) { return stream_->Send(ToProto(message)); }

  const std::shared_ptr<Stream> stream_;
};

class PeerClient::GrpcStageLink final : public StageLink {
 public:
  GrpcStageLink(PeerClient& owner, const std::shared_ptr<grpc::Channel>& channel,
                const OpenOutgoing& open)
      : sent_bytes_(owner.sent_bytes_),
        stream_(OpenLink(channel, open,
                         {.on_accepted =
                              [&loop = owner.loop_, id = open.id](const StageHello& hello) {
                                loop.Deliver(OutgoingAccepted{id, hello});
                              },
                          .on_closed =
                              [&owner, id = open.id](const grpc::Status& status) {
                                owner.OnClosed(id, FromGrpc(status));
                              }})) {}

  bool Send(const HiddenStates& states) override {
    for (v1::HiddenFrame& frame : ToFrames(states)) {
      sent_bytes_.Increment(static_cast<double>(frame.data().size()));
      if (!stream_->Send(std::move(frame))) return false;
    }
    return true;
  }
  void End() override { stream_->End(); }
  void Cancel() override { stream_->Cancel(); }

 private:
  prometheus::Counter& sent_bytes_;
  const std::shared_ptr<LinkStream> stream_;
};

// The stream opens as any Link's; once it is accepted both ends join a communicator, and
// only then the link counts as accepted. Steps are announced on the stream.
class PeerClient::NcclStageLink final : public StageLink {
 public:
  NcclStageLink(PeerClient& owner, const std::shared_ptr<grpc::Channel>& channel,
                const OpenOutgoing& open)
      : sent_bytes_(owner.sent_bytes_),
        stream_(OpenLink(
            channel, open,
            {.on_accepted =
                 [&owner, id = open.id](const StageHello& hello) {
                   owner.loop_.events().PostAt(absl::InfinitePast(), [&owner, id, hello] {
                     const auto found = owner.peers_.find(id);
                     if (found == owner.peers_.end() || found->second.link == nullptr) return;
                     static_cast<NcclStageLink&>(*found->second.link).Join(owner, id, hello);
                   });
                 },
             .on_closed =
                 [&owner, id = open.id](const grpc::Status& status) {
                   owner.OnClosed(id, FromGrpc(status));
                 }})) {
    started_ = {.epoch = open.hello.epoch, .sends = true, .max_values = open.max_hidden_values};
  }

  bool Send(const HiddenStates& states) override {
    if (end_ == nullptr) return false;
    if (!end_->Give(states)) return false;
    sent_bytes_.Increment(static_cast<double>(states.values.size() * sizeof(float)));
    return true;
  }
  void End() override {
    end_.reset();
    stream_->End();
  }
  void Cancel() override {
    end_.reset();
    stream_->Cancel();
  }

 private:
  void Join(PeerClient& owner, OutgoingId id, const StageHello& hello) {
    if (end_ != nullptr) return stream_->Cancel();  // accepted twice
    const auto on_lost = [&loop = owner.loop_](const NcclLost& lost) {
      loop.Deliver(NcclLinkLost{NcclLinkLost::Way::kToNext, lost});
    };
    absl::StatusOr<std::unique_ptr<NcclEnd>> end = NcclEnd::Start(
        owner.nccl_, started_,
        {.on_id =
             [stream = stream_](const NcclId& made) {
               SendOrCancel(*stream, NcclIdFrame({made.data(), made.size()}));
             },
         .on_joined =
             [&loop = owner.loop_, id, hello] {
               loop.Deliver(OutgoingAccepted{id, hello});
             },
         .announce = [stream = stream_](
                         const HiddenAnnounced& step) { SendOrCancel(*stream, ToProto(step)); },
         .on_received = {},
         .on_lost = on_lost});
    if (!end.ok()) {
      return on_lost({started_.epoch, NcclFault::kOwn, std::string(end.status().message())});
    }
    end_ = *std::move(end);
  }
  static void SendOrCancel(LinkStream& stream, v1::HiddenFrame frame) {
    if (!stream.Send(std::move(frame))) stream.Cancel();
  }

  prometheus::Counter& sent_bytes_;
  const std::shared_ptr<LinkStream> stream_;
  NcclStarted started_;
  std::unique_ptr<NcclEnd> end_;  // once accepted
};

PeerClient::PeerClient(WorkerLoop& loop, const TlsOptions& tls, const NcclSetup& nccl,
                       prometheus::Counter& sent_bytes)
    : loop_(loop), tls_(tls), nccl_(nccl), sent_bytes_(sent_bytes) {}

PeerClient::~PeerClient() {
  for (auto& [id, peer] : peers_) {
    if (peer.control != nullptr) peer.control->Cancel();
    if (peer.link != nullptr) peer.link->Cancel();
  }
  std::unique_lock lock(mutex_);
  all_closed_.wait(lock, [this] { return num_open_ == 0; });
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> PeerClient::ChannelTo(const std::string& address) {
  std::shared_ptr<grpc::Channel>& channel = channels_[address];
  if (channel == nullptr) {
    ASSIGN_OR_RETURN(channel, MakeChannel(address, tls_));
  }
  return channel;
}

void PeerClient::Apply(const OpenOutgoing& effect) {
  const absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = ChannelTo(effect.address);
  if (!channel.ok()) return loop_.Deliver(OutgoingClosed{effect.id, channel.status()});
  {
    const std::lock_guard lock(mutex_);
    ++num_open_;
  }
  Peer& peer = peers_[effect.id];
  if (effect.kind == PeerKind::kControl) {
    peer.control = std::make_unique<ControlCall>(*this, *channel, effect);
  } else if (effect.link == LinkKind::kGrpc) {
    peer.link = std::make_unique<GrpcStageLink>(*this, *channel, effect);
  } else {
    peer.link = std::make_unique<NcclStageLink>(*this, *channel, effect);
  }
}

void PeerClient::Apply(const SendOutgoing& effect) {
  const auto found = peers_.find(effect.id);
  if (found == peers_.end()) return;
  Peer& peer = found->second;
  if (const auto* hidden = std::get_if<HiddenStates>(&effect.message)) {
    if (!peer.link->Send(*hidden)) peer.link->Cancel();  // its end is heard of
  } else if (!peer.control->Send(effect.message)) {
    peer.control->Cancel();
  }
}

void PeerClient::Apply(const CloseOutgoing& effect) {
  const auto found = peers_.find(effect.id);
  if (found != peers_.end()) {
    if (found->second.control != nullptr) found->second.control->End();
    if (found->second.link != nullptr) found->second.link->End();
    peers_.erase(found);
  }
  if (peers_.empty()) channels_.clear();  // other peers may live at these addresses next time
}

// What is left of it goes first: an end that still joins shall not speak for a later attempt.
void PeerClient::OnClosed(OutgoingId id, const absl::Status& status) {
  loop_.events().PostAt(absl::InfinitePast(), [this, id] { peers_.erase(id); });
  loop_.Deliver(
      OutgoingClosed{id, status.ok() ? absl::AbortedError("the peer ended the stream") : status});
  const std::lock_guard lock(mutex_);
  if (--num_open_ == 0) all_closed_.notify_all();
}

}  // namespace sauva
