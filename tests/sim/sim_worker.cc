#include "tests/sim/sim_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/events.h"

namespace sauva::sim {

SimWorker::SimWorker(Surroundings surroundings, NodeId node, SimWorkerOptions options)
    : around_(std::move(surroundings)),
      node_(node),
      options_(std::move(options)),
      session_(options_.session) {}

void SimWorker::Connect() {
  WorkerHello hello{.worker_id = options_.worker_id,
                    .address = options_.address,
                    .memory_bytes = options_.memory_bytes,
                    .read_bytes_per_second = 1e9,
                    .operations_per_second = 1e9,
                    .link_bytes_per_second = 1e9,
                    .stage = session_.Report(),
                    .newest_epoch = session_.epoch(),
                    .nccl = {.version = "2.28.9", .device = options_.worker_id}};
  join_ = around_.network.Open(node_, around_.coordinator, std::move(hello));
}

void SimWorker::Do(WorkerEvent event) {
  for (WorkerEffect& effect : session_.OnEvent(std::move(event), around_.timeline.now())) {
    std::visit([this](auto& e) { Apply(e); }, effect);
  }
  session_.head().CheckInvariants();
  SetTimer();
}

void SimWorker::SetTimer() {
  const absl::Time deadline = session_.NextDeadline();
  if (deadline >= next_tick_) return;
  next_tick_ = deadline;
  const absl::Duration wait = std::max(absl::ZeroDuration(), deadline - around_.timeline.now());
  around_.network.Local(node_, wait, [this, deadline] {
    if (next_tick_ != deadline) return;
    next_tick_ = absl::InfiniteFuture();
    Do(WorkerTick{});
  });
}

// --- From the network

void SimWorker::OnOpen(WireId wire, const Message& first) {
  if (const auto* peer = std::any_cast<PeerOpen>(&first)) {
    incoming_.insert(wire);
    if (peer->link == LinkKind::kNccl) by_nccl_.insert(wire);
    return Do(IncomingHello{wire, peer->kind, peer->hello});
  }
  streams_.insert(wire);
  Do(StreamOpened{wire, std::any_cast<const SequenceRequest&>(first)});
}

void SimWorker::OnMessage(WireId wire, const Message& message) {
  if (join_ == wire) {
    const auto& command = std::any_cast<const WorkerCommand&>(message);
    if (std::holds_alternative<Welcome>(command)) join_backoff_ = absl::Milliseconds(50);
    return std::visit([this](auto c) { Do(std::move(c)); }, command);
  }
  if (incoming_.contains(wire)) {
    return Do(IncomingMessage{wire, std::any_cast<const StageMessage&>(message)});
  }
  const auto outgoing = outgoing_of_.find(wire);
  if (outgoing == outgoing_of_.end()) return;  // closed by this side
  if (const auto* hello = std::any_cast<StageHello>(&message)) {
    if (unjoinable_.contains(wire)) return LoseNccl(*hello);
    return Do(OutgoingAccepted{outgoing->second, *hello});
  }
  Do(OutgoingReply{outgoing->second, std::any_cast<const StageReply&>(message)});
}

void SimWorker::OnClosed(WireId wire, const absl::Status& status) {
  if (join_ == wire) {
    join_.reset();
    around_.network.Local(node_, join_backoff_, [this] {
      if (!join_) Connect();
    });
    join_backoff_ = std::min(join_backoff_ * 2, absl::Seconds(1));
    return Do(CoordinatorLost{});
  }
  by_nccl_.erase(wire);
  if (incoming_.erase(wire) > 0) return Do(IncomingClosed{wire, status});
  if (streams_.erase(wire) > 0) return Do(StreamCancelled{wire});
  const auto outgoing = outgoing_of_.find(wire);
  if (outgoing == outgoing_of_.end()) return;
  const OutgoingId id = outgoing->second;
  outgoing_.erase(id);
  outgoing_of_.erase(outgoing);
  unjoinable_.erase(wire);
  Do(OutgoingClosed{id, status});
}

// Either end may be the one that finds out.
void SimWorker::LoseNccl(const StageHello& hello) {
  const NcclFault fault = around_.random.Chance(50) ? NcclFault::kOwn : NcclFault::kPeer;
  const absl::Duration wait =
      around_.random.Between(absl::Milliseconds(1), absl::Milliseconds(500));
  around_.network.Local(node_, wait, [this, epoch = hello.epoch, fault] {
    Do(NcclLinkLost{NcclLinkLost::Way::kToNext, {epoch, fault, "no route to host"}});
  });
}

// --- To the coordinator, the peers and the gateways

void SimWorker::Say(Message message) {
  if (join_) around_.network.Send(node_, *join_, std::move(message));
}

void SimWorker::Apply(OpenOutgoing& effect) {
  const std::optional<NodeId> peer = around_.resolve(effect.address);
  if (!peer || *peer == node_) {
    around_.network.Local(node_, absl::Milliseconds(1), [this, id = effect.id] {
      Do(OutgoingClosed{id, absl::UnavailableError("connection refused")});
    });
    return;
  }
  const WireId wire =
      around_.network.Open(node_, *peer, PeerOpen{effect.kind, effect.hello, effect.link});
  if (effect.link == LinkKind::kNccl && !around_.nccl_connects(node_, *peer)) {
    unjoinable_.insert(wire);
  }
  outgoing_[effect.id] = wire;
  outgoing_of_[wire] = effect.id;
}

void SimWorker::Apply(CloseOutgoing& effect) {
  const auto found = outgoing_.find(effect.id);
  if (found == outgoing_.end()) return;
  around_.network.Close(node_, found->second, absl::AbortedError("the caller ended the epoch"));
  outgoing_of_.erase(found->second);
  unjoinable_.erase(found->second);
  outgoing_.erase(found);
}

void SimWorker::Apply(SendOutgoing& effect) {
  const auto found = outgoing_.find(effect.id);
  if (found == outgoing_.end()) return;
  around_.network.Send(node_, found->second, std::move(effect.message));
}

void SimWorker::Apply(AcceptIncoming& effect) {
  Check(by_nccl_.contains(effect.id) == (effect.link == LinkKind::kNccl),
        "both ends of a link mean the same");
  around_.network.Send(node_, effect.id, effect.hello);
}

void SimWorker::Apply(EndIncoming& effect) {
  incoming_.erase(effect.id);
  around_.network.Close(node_, effect.id, effect.status);
}

void SimWorker::Apply(SendIncoming& effect) {
  around_.network.Send(node_, effect.id, std::move(effect.reply));
}

void SimWorker::Apply(StreamTokens& effect) {
  if (!streams_.contains(effect.stream) || stalled_.contains(effect.stream)) return;
  if (around_.network.Backlog(node_, effect.stream) < options_.max_unread_messages) {
    around_.network.Send(node_, effect.stream, std::move(effect.tokens));
    return;
  }
  stalled_.insert(effect.stream);
  around_.network.Local(node_, absl::ZeroDuration(), [this, stream = effect.stream] {
    if (streams_.contains(stream)) Do(StreamStalled{stream});
  });
}

void SimWorker::Apply(EndStream& effect) {
  streams_.erase(effect.stream);
  stalled_.erase(effect.stream);
  around_.network.Close(node_, effect.stream, effect.status);
}

// --- To the engine: one job after the other

void SimWorker::ToEngine(absl::Duration time, std::function<void()> job) {
  engine_free_at_ = std::max(engine_free_at_, around_.timeline.now()) + time;
  around_.network.Local(node_, engine_free_at_ - around_.timeline.now(), std::move(job));
}

void SimWorker::Apply(LoadLayers& effect) {
  const StageAssignment& wanted = effect.assignment;
  const bool held =
      loaded_.epoch != 0 && loaded_.model == wanted.model && loaded_.layers() == wanted.layers();
  const absl::Duration time = held ? absl::Milliseconds(1) : options_.load_time;
  const bool fails = !held && around_.random.Chance(options_.load_failure_percent);
  ToEngine(time, [this, wanted, fails] {
    StageLoaded loaded{.epoch = wanted.epoch};
    if (fails) {
      loaded_ = {};
      loaded.status = absl::ResourceExhaustedError("no memory for the weights just now");
    } else {
      loaded_ = wanted;
      loaded.stage = {.facts = {.vocab_size = kVocabSize,
                                .hidden_size = kStateFloats,
                                .max_context = kMaxContext,
                                .eos_tokens = {kEos}},
                      .max_kv_blocks = options_.max_kv_blocks};
    }
    Do(std::move(loaded));
  });
}

void SimWorker::Apply(AllocateKv& effect) {
  ToEngine(absl::Milliseconds(2), [this, effect] {
    // The pool is the last load's, whichever epoch asked first.
    engine_.Start(loaded_, static_cast<int>(effect.num_kv_blocks), around_.random.Next());
    Do(KvAllocated{.epoch = effect.epoch, .status = absl::OkStatus()});
  });
}

void SimWorker::Apply(OpenSequence& effect) {
  ToEngine(absl::ZeroDuration(), [this, open = std::move(effect)] { engine_.Open(open); });
}

void SimWorker::Apply(CloseSequence& effect) {
  ToEngine(absl::ZeroDuration(), [this, id = effect.id] { engine_.Close(id); });
}

void SimWorker::Apply(ComputeStep& effect) {
  const absl::Duration time =
      around_.random.Between(options_.step_time / 2, options_.step_time * 2);
  // What was asked for before an epoch ended is still done, and told.
  ToEngine(time, [this, work = std::move(effect)] { Do(engine_.Run(work)); });
}

}  // namespace sauva::sim
