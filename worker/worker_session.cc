#include "worker/worker_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

// How long a draining worker without work waits for the coordinator to end its stage.
constexpr absl::Duration kDrainGrace = absl::Seconds(2);

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

WorkerSession::WorkerSession(const WorkerOptions& options)
    : options_(options), head_(options.head) {}

WorkerEffects WorkerSession::OnEvent(WorkerEvent event, absl::Time now) {
  now_ = now;
  std::visit([this](auto& e) { Handle(std::move(e)); }, event);
  RunInner();
  if (std::exchange(report_due_, false)) SendReport();
  if (draining_ && !drained_) WatchDrain();
  return std::exchange(effects_, {});
}

absl::Time WorkerSession::NextDeadline() const {
  absl::Time next = std::min(links_.NextDeadline(), head_.NextDeadline());
  if (connected()) next = std::min(next, next_heartbeat_);
  if (draining_ && !drained_) {
    next = std::min(next, drain_deadline_);
    if (idle_since_) next = std::min(next, *idle_since_ + kDrainGrace);
  }
  return next;
}

// --- What the coordinator says

void WorkerSession::Handle(Welcome event) {
  heartbeat_ = absl::Milliseconds(std::max(event.heartbeat_ms, 1));
  next_heartbeat_ = now_ + heartbeat_;
}

void WorkerSession::Handle(CoordinatorLost) { heartbeat_ = absl::ZeroDuration(); }

void WorkerSession::Handle(StageAssignment event) {
  if (event.epoch == assignment_.epoch && event == assignment_) return SendReport();
  if (event.epoch <= assignment_.epoch || draining_) {
    ++counters_.stale_messages;
    const std::string error = draining_
                                  ? std::string("this worker drains")
                                  : absl::StrCat("epoch ", event.epoch, " is not newer than epoch ",
                                                 assignment_.epoch, ", which this worker has seen");
    effects_.push_back(
        StageReport{.assignment = std::move(event), .phase = StagePhase::kFailed, .error = error});
    return;
  }
  EndEpoch(absl::StrCat("epoch ", event.epoch, " replaces it"));
  assignment_ = std::move(event);
  phase_ = Phase::kLoading;
  SendReport();
  if (loading_epoch_ == 0) BeginLoading();
}

void WorkerSession::BeginLoading() {
  loading_epoch_ = assignment_.epoch;
  effects_.push_back(LoadLayers{assignment_});
}

void WorkerSession::Handle(StageLoaded event) {
  Check(event.epoch == loading_epoch_, "one load at a time");
  loading_epoch_ = 0;
  if (phase_ != Phase::kLoading) return;  // stopped meanwhile
  if (event.epoch != assignment_.epoch) return BeginLoading();
  if (!event.status.ok()) return Fail(event.status);
  loaded_ = std::move(event.stage);
  phase_ = Phase::kLoaded;
  SendReport();
}

void WorkerSession::Handle(StartStage event) {
  if (event.epoch != assignment_.epoch || phase_ != Phase::kLoaded) {
    ++counters_.stale_messages;
    return;
  }
  if (event.num_kv_blocks == 0 || event.num_kv_blocks > loaded_.max_kv_blocks) {
    return Fail(absl::ResourceExhaustedError(absl::StrCat("asked for ", event.num_kv_blocks,
                                                          " KV blocks; the memory budget holds ",
                                                          loaded_.max_kv_blocks)));
  }
  num_kv_blocks_ = event.num_kv_blocks;
  phase_ = Phase::kAllocating;
  effects_.push_back(AllocateKv{event.epoch, event.num_kv_blocks});
}

void WorkerSession::Handle(KvAllocated event) {
  if (event.epoch != assignment_.epoch || phase_ != Phase::kAllocating) return;
  if (!event.status.ok()) return Fail(event.status);
  kv_bytes_ = event.kv_bytes;
  phase_ = Phase::kConnecting;
  RunStage(StageStarted{assignment_, num_kv_blocks_, loaded_.facts});
  for (OpenOutgoing& open : links_.Start(assignment_, options_.connect_timeout, now_)) {
    OpenStream(std::move(open));
  }
  ServeIfConnected();
}

void WorkerSession::OpenStream(OpenOutgoing open) {
  if (open.kind == PeerKind::kLink) open.max_hidden_values = MaxHiddenValues();
  effects_.push_back(std::move(open));
}

void WorkerSession::ServeIfConnected() {
  if (phase_ != Phase::kConnecting || !links_.all_accepted()) return;
  phase_ = Phase::kServing;
  ++counters_.epochs_started;
  if (assignment_.is_head()) RunHead(HeadStart{assignment_, num_kv_blocks_, loaded_.facts});
  report_due_ = true;  // once the head has begun
}

void WorkerSession::Handle(StopStage event) {
  if (event.epoch < assignment_.epoch) {
    ++counters_.stale_messages;
    return;
  }
  EndEpoch(event.reason);
  if (connected()) BeatHeart();  // the coordinator places those that answer
}

void WorkerSession::Handle(DrainWorker event) { BeginDrain(absl::Milliseconds(event.timeout_ms)); }

// --- What the engine says

void WorkerSession::Handle(StepComputed event) { RunStage(std::move(event)); }
void WorkerSession::Handle(OpenFailed event) { RunStage(std::move(event)); }

// --- What other workers say

void WorkerSession::Handle(IncomingHello event) {
  if (const absl::Status status = CheckHello(event); !status.ok()) {
    effects_.push_back(EndIncoming{event.id, status});
    return;
  }
  const bool is_link = event.kind == PeerKind::kLink;
  (is_link ? link_ : control_) = event.id;
  effects_.push_back(AcceptIncoming{
      .id = event.id,
      .hello = {.epoch = assignment_.epoch,
                .from_stage = assignment_.stage_index,
                .to_stage = event.hello.from_stage,
                .numerics_id = assignment_.numerics_id,
                .protocol_version = kProtocolVersion},
      .max_hidden_values = MaxHiddenValues(),
      .link = is_link && assignment_.receives_by_nccl() ? LinkKind::kNccl : LinkKind::kGrpc});
}

absl::Status WorkerSession::CheckHello(const IncomingHello& event) const {
  const StageHello& hello = event.hello;
  if (hello.protocol_version != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat("protocol version ", hello.protocol_version,
                                                      "; this worker speaks ", kProtocolVersion));
  }
  if (hello.epoch > assignment_.epoch) {
    return absl::UnavailableError(absl::StrCat("epoch ", hello.epoch, " has not begun here"));
  }
  if (hello.epoch < assignment_.epoch || phase_ == Phase::kIdle || phase_ == Phase::kFailed) {
    return absl::FailedPreconditionError(absl::StrCat("epoch ", hello.epoch, " is over here"));
  }
  if (!stage_.started()) {
    return absl::UnavailableError(absl::StrCat("epoch ", hello.epoch, " has not begun here"));
  }
  const bool control = event.kind == PeerKind::kControl;
  const int from_stage = control ? 0 : assignment_.stage_index - 1;
  if (assignment_.is_head() || hello.from_stage != from_stage ||
      hello.to_stage != assignment_.stage_index) {
    return absl::FailedPreconditionError(absl::StrCat("stage ", hello.from_stage, " calls stage ",
                                                      hello.to_stage, "; this worker is stage ",
                                                      assignment_.stage_index));
  }
  if (hello.numerics_id != assignment_.numerics_id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "numerics ", hello.numerics_id, "; this worker serves ", assignment_.numerics_id));
  }
  if (control ? control_.has_value() : link_.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("stage ", hello.from_stage, " is connected already"));
  }
  return absl::OkStatus();
}

void WorkerSession::Handle(IncomingMessage event) {
  const bool is_hidden = std::holds_alternative<HiddenStates>(event.message);
  if ((is_hidden ? link_ : control_) != event.id) {
    ++counters_.stale_messages;
    return;
  }
  MeasureWait(event.message);
  std::visit([this](auto& message) { RunStage(std::move(message)); }, event.message);
}

void WorkerSession::MeasureWait(const StageMessage& message) {
  if (const auto* header = std::get_if<StepHeader>(&message)) {
    // No more than the stage itself would hold; what goes beyond is its fault to find.
    if (headers_.size() <= assignment_.stages.size() + StageSession::kSpareSteps) {
      headers_.emplace_back(header->step_id, now_);
    }
  } else if (const auto* hidden = std::get_if<HiddenStates>(&message)) {
    while (!headers_.empty() && headers_.front().first < hidden->step_id) headers_.pop_front();
    if (headers_.empty() || headers_.front().first != hidden->step_id) return;  // came first
    ++counters_.hidden_waits;
    counters_.hidden_wait += now_ - headers_.front().second;
    headers_.pop_front();
  }
}

void WorkerSession::Handle(IncomingClosed event) {
  if (control_ != event.id && link_ != event.id) return;
  const bool control = control_ == event.id;
  (control ? control_ : link_).reset();
  const std::string worker = WorkerOf(control ? 0 : assignment_.stage_index - 1);
  Break({.suspect_worker_id = absl::IsAborted(event.status) ? std::string() : worker,
         .reason = absl::StrCat("the ", control ? "control" : "link", " stream from ", worker,
                                " ended: ", event.status.ToString())});
}

void WorkerSession::Handle(OutgoingAccepted event) {
  if (const auto lost = links_.OnAccepted(event.id, event.hello)) return Break(*lost);
  ServeIfConnected();
}

void WorkerSession::Handle(OutgoingReply event) {
  if (!links_.Knows(event.id)) {
    ++counters_.stale_messages;
    return;
  }
  const int stage_index = links_.StageOf(event.id);
  std::visit(Overloaded{
                 [&](StepResult& result) {
                   RunHead(StageResult{stage_index, std::move(result)});
                 },
                 [&](StageFault& fault) {
                   Break({fault.suspect_worker_id, fault.reason});
                 },
             },
             event.reply);
}

void WorkerSession::Handle(OutgoingClosed event) {
  if (const auto lost = links_.OnClosed(event.id, event.status, now_)) Break(*lost);
}

void WorkerSession::Handle(NcclLinkLost event) {
  if (event.lost.epoch != assignment_.epoch) {
    ++counters_.stale_messages;
    return;
  }
  const bool sends = event.way == NcclLinkLost::Way::kToNext;
  const int peer = assignment_.stage_index + (sends ? 1 : -1);
  const bool own = event.lost.fault == NcclFault::kOwn;
  Break({.suspect_worker_id = WorkerOf(own ? assignment_.stage_index : peer),
         .reason =
             absl::StrCat("the link ", sends ? "to" : "from", " stage ", peer, " (", WorkerOf(peer),
                          ") failed", own ? " at this end: " : ": ", event.lost.reason),
         .nccl_link = std::min(peer, assignment_.stage_index)});
}

// --- What gateways say

void WorkerSession::Handle(StreamOpened event) { RunHead(std::move(event)); }
void WorkerSession::Handle(StreamCancelled event) { RunHead(event); }
void WorkerSession::Handle(StreamStalled event) { RunHead(event); }

// --- Time and the end

void WorkerSession::Handle(WorkerTick) {
  if (connected() && now_ >= next_heartbeat_) BeatHeart();
  std::optional<PipelineLinks::Lost> lost;
  for (OpenOutgoing& open : links_.OnTick(now_, lost)) OpenStream(std::move(open));
  if (lost) Break(*lost);
  RunHead(WorkerTick{});
}

void WorkerSession::BeatHeart() {
  next_heartbeat_ = now_ + heartbeat_;
  effects_.push_back(Heartbeat{.stage = Report(), .draining = draining_});
}

void WorkerSession::Handle(ShutDownWorker event) {
  shutting_down_ = true;
  if (drained_) effects_.push_back(WorkerDrained{num_cut_streams_});
  BeginDrain(event.timeout);
}

void WorkerSession::BeginDrain(absl::Duration timeout) {
  drain_deadline_ = draining_ ? std::min(drain_deadline_, now_ + timeout) : now_ + timeout;
  draining_ = true;
  RunHead(HeadDrain{});
  if (connected()) BeatHeart();
}

// A head is done when its streams are. Another stage cannot know; it leaves when it is told
// to, or when nothing has been open for a while.
void WorkerSession::WatchDrain() {
  if (head_.num_streams() > 0 || stage_.num_open_sequences() > 0) {
    idle_since_.reset();
  } else if (!idle_since_) {
    idle_since_ = now_;
  }
  const bool idle = phase_ == Phase::kIdle || phase_ == Phase::kFailed;
  const bool unused = idle_since_ && (assignment_.is_head() || now_ >= *idle_since_ + kDrainGrace);
  if (!idle && !unused && now_ < drain_deadline_) return;
  num_cut_streams_ = head_.num_streams();
  EndEpoch("this worker shuts down");
  RunInner();
  drained_ = true;
  if (shutting_down_) effects_.push_back(WorkerDrained{num_cut_streams_});
}

// --- Within

// The head and the stage answer one after the other, never from within each other: else
// what a broken epoch says could overtake what was said before it broke.
void WorkerSession::RunStage(StageEvent event) { inner_.emplace_back(std::move(event)); }
void WorkerSession::RunHead(HeadEvent event) { inner_.emplace_back(std::move(event)); }

void WorkerSession::RunInner() {
  while (!inner_.empty()) {
    InnerEvent inner = std::move(inner_.front());
    inner_.pop_front();
    std::visit([this](auto& e) { Run(std::move(e)); }, inner);
  }
}

void WorkerSession::Run(StageEvent event) {
  for (StageEffect& effect : stage_.OnEvent(std::move(event))) {
    std::visit([this](auto& e) { Apply(std::move(e)); }, effect);
  }
}

void WorkerSession::Run(HeadEvent event) {
  for (HeadEffect& effect : head_.OnEvent(std::move(event), now_)) {
    std::visit(Overloaded{
                   [this](StreamTokens& e) { effects_.push_back(std::move(e)); },
                   [this](EndStream& e) { effects_.push_back(std::move(e)); },
                   [this](HeadBroken& e) {
                     Break({e.broken.suspect_worker_id, e.broken.reason});
                   },
                   [this](auto& message) { Broadcast(std::move(message)); },
               },
               effect);
  }
}

void WorkerSession::Broadcast(StageMessage message) {
  for (const OutgoingId id : links_.controls()) effects_.push_back(SendOutgoing{id, message});
  std::visit([this](auto& m) { RunStage(std::move(m)); }, message);
}

void WorkerSession::Apply(OpenSequence effect) { effects_.push_back(std::move(effect)); }
void WorkerSession::Apply(CloseSequence effect) { effects_.push_back(effect); }
void WorkerSession::Apply(ComputeStep effect) { effects_.push_back(std::move(effect)); }

void WorkerSession::Apply(HiddenStates effect) {
  const std::optional<OutgoingId> link = links_.link();
  if (link) effects_.push_back(SendOutgoing{*link, std::move(effect)});
}

void WorkerSession::Apply(StepResult effect) {
  if (assignment_.is_head()) return RunHead(StageResult{0, std::move(effect)});
  if (control_) effects_.push_back(SendIncoming{*control_, std::move(effect)});
}

void WorkerSession::Apply(StageFault effect) { Break({effect.suspect_worker_id, effect.reason}); }

// Tells everybody and ends the epoch.
void WorkerSession::Break(const PipelineLinks::Lost& lost) {
  if (phase_ != Phase::kConnecting && phase_ != Phase::kServing) return;
  ++counters_.epochs_broken;
  effects_.push_back(StageBroken{.epoch = assignment_.epoch,
                                 .suspect_worker_id = lost.suspect_worker_id,
                                 .reason = lost.reason,
                                 .nccl_link = lost.nccl_link});
  if (control_) {
    effects_.push_back(SendIncoming{
        *control_, StageFault{assignment_.epoch, lost.reason, lost.suspect_worker_id}});
  }
  EndEpoch(lost.reason);
}

// Ends what is loading or served here; weights stay in memory.
void WorkerSession::EndEpoch(const std::string& reason) {
  phase_ = Phase::kIdle;
  const absl::Status ended =
      absl::AbortedError(absl::StrCat("epoch ", assignment_.epoch, " ended here: ", reason));
  for (std::optional<IncomingId>* incoming : {&control_, &link_}) {
    if (*incoming) effects_.push_back(EndIncoming{**incoming, ended});
    incoming->reset();
  }
  headers_.clear();
  for (const CloseOutgoing& close : links_.Stop()) effects_.push_back(close);
  RunStage(StageStopped{});
  RunHead(PipelineBroken{reason});
}

void WorkerSession::Fail(const absl::Status& status) {
  EndEpoch(std::string(status.message()));
  phase_ = Phase::kFailed;
  error_ = status.ToString();
  SendReport();
}

void WorkerSession::SendReport() {
  if (const std::optional<StageReport> report = Report()) effects_.push_back(*report);
}

std::optional<StageReport> WorkerSession::Report() const {
  if (phase_ == Phase::kIdle) return std::nullopt;
  StageReport report{.assignment = assignment_};
  report.phase = phase_ == Phase::kLoading   ? StagePhase::kLoading
                 : phase_ == Phase::kServing ? StagePhase::kServing
                 : phase_ == Phase::kFailed  ? StagePhase::kFailed
                                             : StagePhase::kLoaded;
  if (phase_ == Phase::kFailed) {
    report.error = error_;
    return report;
  }
  if (phase_ == Phase::kLoading) return report;
  report.max_kv_blocks = loaded_.max_kv_blocks;
  report.weight_bytes = loaded_.weight_bytes;
  report.scratch_bytes = loaded_.scratch_bytes;
  if (phase_ != Phase::kServing) return report;
  report.num_kv_blocks = num_kv_blocks_;
  report.kv_bytes = kv_bytes_;
  report.steps_done = stage_.counters().steps_done;
  report.tokens_done = stage_.counters().tokens_done;
  report.step_seconds = stage_.counters().step_seconds;
  report.running_sequences = static_cast<uint32_t>(head_.num_running());
  report.waiting_sequences = static_cast<uint32_t>(head_.num_waiting());
  report.free_kv_blocks = static_cast<uint32_t>(head_.num_free_blocks());
  return report;
}

size_t WorkerSession::MaxHiddenValues() const {
  return static_cast<size_t>(assignment_.max_step_tokens) *
         static_cast<size_t>(loaded_.facts.hidden_size);
}

std::string WorkerSession::WorkerOf(int stage_index) const {
  return assignment_.stages[static_cast<size_t>(stage_index)].worker_id;
}

}  // namespace sauva
