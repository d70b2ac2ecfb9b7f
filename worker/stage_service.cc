#include "worker/stage_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "net/status_codec.h"
#include "net/traceparent.h"
#include "proto/generation_codec.h"

namespace sauva {
namespace {

// More replies than steps in flight never wait on one stream.
constexpr size_t kMaxWaitingReplies = 4096;

absl::Status ClosedStatus(grpc::CallbackServerContext* context) {
  if (context->IsCancelled()) return absl::UnavailableError("the connection broke");
  return absl::AbortedError("the caller ended the epoch");
}

}  // namespace

// --- Generate

grpc::ServerWriteReactor<v1::SequenceTokens>* StageService::Generate(
    grpc::CallbackServerContext* context, const v1::SequenceRequest* request) {
  const auto trace = context->client_metadata().find(kTraceparentKey);
  if (trace != context->client_metadata().end()) {
    LogDebug("stream", {{"request_id", request->request_id()},
                        {"sample", request->sample_index()},
                        {"traceparent", std::string(trace->second.data(), trace->second.size())}});
  }
  auto call = ServerWriter<v1::SequenceTokens>::Make(
      {.messages = options_.max_unread_messages, .bytes = options_.max_unread_bytes});
  StreamId id = 0;
  bool refused = false;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_stream_;
    refused = streams_.size() >= options_.max_streams;
    if (!refused) streams_.emplace(id, Writer{call});
  }
  auto* reactor = call->Listen([this, id] {
    {
      const std::lock_guard lock(mutex_);
      if (streams_.erase(id) == 0) return;
    }
    loop_.Deliver(StreamCancelled{id});
  });
  const absl::Status status =
      refused ? absl::ResourceExhaustedError(
                    absl::StrCat("this head has ", options_.max_streams, " streams, its limit"))
              : OpenStream(id, *request);
  if (!status.ok()) {
    const std::lock_guard lock(mutex_);
    streams_.erase(id);
    call->Finish(ToGrpc(status));
  }
  return reactor;
}

absl::Status StageService::OpenStream(StreamId id, const v1::SequenceRequest& request) {
  ASSIGN_OR_RETURN(SequenceRequest sequence, FromProto(request));
  return Offer(StreamOpened{id, std::move(sequence)});
}

absl::Status StageService::Offer(WorkerEvent event) {
  if (loop_.Offer(std::move(event))) return absl::OkStatus();
  return absl::ResourceExhaustedError("this worker is overloaded: too many events wait");
}

void StageService::Apply(const StreamTokens& effect) {
  v1::SequenceTokens message;
  ToProto(effect.tokens, &message);
  {
    const std::lock_guard lock(mutex_);
    const auto found = streams_.find(effect.stream);
    if (found == streams_.end() || found->second.stalled) return;
    if (found->second.call->Send(std::move(message))) return;
    found->second.stalled = true;  // a later message would leave a gap
  }
  loop_.Deliver(StreamStalled{effect.stream});
}

void StageService::Apply(const EndStream& effect) {
  std::shared_ptr<ServerWriter<v1::SequenceTokens>> call;
  {
    const std::lock_guard lock(mutex_);
    const auto found = streams_.find(effect.stream);
    if (found == streams_.end()) return;
    call = std::move(found->second.call);
    streams_.erase(found);
  }
  call->Finish(ToGrpc(effect.status));
}

// --- Control and Link

void StageService::Incoming::Finish(const absl::Status& status) const {
  if (control != nullptr) control->Finish(ToGrpc(status));
  if (link != nullptr) link->Finish(ToGrpc(status));
}

IncomingId StageService::Add(Incoming incoming) {
  const std::lock_guard lock(mutex_);
  const IncomingId id = ++last_incoming_;
  if (incoming_.size() < options_.max_incoming) {
    incoming_.emplace(id, std::move(incoming));
  } else {
    incoming.Finish(absl::ResourceExhaustedError(
        absl::StrCat("this worker has ", options_.max_incoming, " streams of others, its limit")));
  }
  return id;
}

std::optional<StageService::Incoming> StageService::Find(IncomingId id) {
  const std::lock_guard lock(mutex_);
  const auto found = incoming_.find(id);
  if (found == incoming_.end()) return std::nullopt;
  return found->second;
}

grpc::ServerBidiReactor<v1::ControlMessage, v1::ControlReply>* StageService::Control(
    grpc::CallbackServerContext* context) {
  auto stream = ControlStream::Make({.messages = kMaxWaitingReplies});
  const IncomingId id = Add({.control = stream});
  return stream->Listen(
      {.on_message = [this, id](const v1::ControlMessage& message) { OnControl(id, message); },
       .on_closed = [this, id, context] { OnIncomingClosed(id, ClosedStatus(context)); }});
}

grpc::ServerBidiReactor<v1::HiddenFrame, v1::LinkReply>* StageService::Link(
    grpc::CallbackServerContext* context) {
  auto stream = LinkStream::Make({.messages = kMaxWaitingReplies});
  const IncomingId id = Add({.link = stream});
  return stream->Listen(
      {.on_message = [this, id](const v1::HiddenFrame& frame) { OnLink(id, frame); },
       .on_closed = [this, id, context] { OnIncomingClosed(id, ClosedStatus(context)); }});
}

void StageService::OnControl(IncomingId id, const v1::ControlMessage& message) {
  if (!Find(id)) return;  // ended by this side
  const absl::Status status = TakeControl(id, message);
  if (!status.ok()) OnIncomingClosed(id, status);
}

absl::Status StageService::TakeControl(IncomingId id, const v1::ControlMessage& message) {
  ASSIGN_OR_RETURN(ControlMessage control, FromProto(message));
  if (auto* hello = std::get_if<StageHello>(&control)) {
    return Offer(IncomingHello{id, PeerKind::kControl, std::move(*hello)});
  }
  if (auto* open = std::get_if<OpenSequence>(&control)) {
    return Offer(IncomingMessage{id, std::move(*open)});
  }
  if (auto* close = std::get_if<CloseSequence>(&control)) {
    return Offer(IncomingMessage{id, *close});
  }
  return Offer(IncomingMessage{id, std::get<StepHeader>(std::move(control))});
}

void StageService::OnLink(IncomingId id, const v1::HiddenFrame& frame) {
  const absl::Status status = TakeLink(id, frame);
  if (!status.ok()) OnIncomingClosed(id, status);
}

absl::Status StageService::TakeLink(IncomingId id, const v1::HiddenFrame& frame) {
  if (frame.has_hello()) {
    return Offer(IncomingHello{id, PeerKind::kLink, FromProto(frame.hello())});
  }
  const std::optional<Incoming> incoming = Find(id);
  if (!incoming) return absl::OkStatus();  // ended by this side
  if (!frame.nccl_id().empty()) return JoinNccl(id, frame.nccl_id());
  if (incoming->nccl != nullptr) {
    ASSIGN_OR_RETURN(HiddenAnnounced announced, AnnouncementFrom(frame));
    if (incoming->nccl->Give(announced)) return absl::OkStatus();
    return absl::ResourceExhaustedError("too many announced steps wait for their tensors");
  }
  if (incoming->assembler == nullptr) {
    return absl::FailedPreconditionError("hidden states before this link was accepted");
  }
  received_bytes_.Increment(static_cast<double>(frame.data().size()));
  ASSIGN_OR_RETURN(const bool complete, incoming->assembler->Add(frame));
  if (!complete) return absl::OkStatus();
  return Offer(IncomingMessage{id, incoming->assembler->Take()});
}

// Both a stream that ended by itself and one that sent what makes no sense.
void StageService::OnIncomingClosed(IncomingId id, const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = incoming_.find(id);
    if (found == incoming_.end()) return;
    found->second.Finish(status);
    incoming_.erase(found);
  }
  if (!absl::IsAborted(status) && !absl::IsUnavailable(status)) {
    LogWarning("a peer makes no sense", {{"reason", status.ToString()}});
  }
  loop_.Deliver(IncomingClosed{id, status});
}

void StageService::Apply(const AcceptIncoming& effect) {
  const std::lock_guard lock(mutex_);
  const auto found = incoming_.find(effect.id);
  if (found == incoming_.end()) return;
  Incoming& incoming = found->second;
  if (incoming.control != nullptr) {
    incoming.control->Send(ToProto(ControlReply(effect.hello)));
    return;
  }
  if (effect.link == LinkKind::kGrpc) {
    incoming.assembler = std::make_shared<HiddenAssembler>(effect.max_hidden_values);
  } else {
    incoming.nccl_start = NcclStarted{
        .epoch = effect.hello.epoch, .sends = false, .max_values = effect.max_hidden_values};
  }
  v1::LinkReply reply;
  ToProto(effect.hello, reply.mutable_hello());
  incoming.link->Send(std::move(reply));
}

absl::Status StageService::JoinNccl(IncomingId id, const std::string& nccl_id) {
  RETURN_IF_ERROR(CheckNcclId(nccl_id));
  const std::lock_guard lock(mutex_);
  const auto found = incoming_.find(id);
  if (found == incoming_.end()) return absl::OkStatus();  // ended by this side
  Incoming& incoming = found->second;
  if (!incoming.nccl_start) {
    return absl::FailedPreconditionError("an id of NCCL on a stream that waits for none");
  }
  NcclStarted started = *std::exchange(incoming.nccl_start, std::nullopt);
  std::copy_n(nccl_id.begin(), started.id.size(), started.id.begin());
  absl::StatusOr<std::unique_ptr<NcclEnd>> end = NcclEnd::Start(nccl_, started, NcclHandlers(id));
  if (end.ok()) {
    incoming.nccl = *std::move(end);
  } else {
    loop_.Deliver(
        NcclLinkLost{NcclLinkLost::Way::kFromPrevious,
                     {started.epoch, NcclFault::kOwn, std::string(end.status().message())}});
  }
  return absl::OkStatus();
}

// The end's thread takes no lock of this service: what ends the link goes by the loop.
NcclEnd::Handlers StageService::NcclHandlers(IncomingId id) {
  return {
      .on_id = {},
      .on_joined = {},
      .announce = {},
      .on_received =
          [this, id](HiddenStates states) {
            received_bytes_.Increment(static_cast<double>(states.values.size() * sizeof(float)));
            if (loop_.Offer(IncomingMessage{id, std::move(states)})) return;
            loop_.events().PostAt(absl::InfinitePast(), [this, id] {
              OnIncomingClosed(
                  id, absl::UnavailableError("this worker is overloaded: too many events wait"));
            });
          },
      .on_lost =
          [this](const NcclLost& lost) {
            loop_.Deliver(NcclLinkLost{NcclLinkLost::Way::kFromPrevious, lost});
          }};
}

void StageService::Apply(const SendIncoming& effect) {
  const std::optional<Incoming> incoming = Find(effect.id);
  if (!incoming || incoming->control == nullptr) return;
  const ControlReply reply =
      std::visit([](const auto& r) { return ControlReply(r); }, effect.reply);
  if (incoming->control->Send(ToProto(reply))) return;
  OnIncomingClosed(effect.id, absl::UnavailableError("the head takes no replies any more"));
}

void StageService::Apply(const EndIncoming& effect) {
  const std::lock_guard lock(mutex_);
  const auto found = incoming_.find(effect.id);
  if (found == incoming_.end()) return;
  found->second.Finish(effect.status);
  incoming_.erase(found);
}

}  // namespace sauva
