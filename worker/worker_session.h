#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/control.h"
#include "proto/stage.h"
#include "worker/head_session.h"
#include "worker/nccl_session.h"
#include "worker/pipeline_links.h"
#include "worker/session_types.h"
#include "worker/stage_session.h"

namespace sauva {

// A Control or Link stream opened by another worker; numbered by whoever runs the
// session, never used twice.
using IncomingId = uint64_t;

using StageMessage = std::variant<OpenSequence, CloseSequence, StepHeader, HiddenStates>;
using StageReply = std::variant<StepResult, StageFault>;

// --- Events. Those from the coordinator are Welcome (connected), StageAssignment,
// StartStage, StopStage and DrainWorker; those from gateways StreamOpened,
// StreamCancelled and StreamStalled; those from the engine, beside the two below,
// StepComputed and OpenFailed.

struct CoordinatorLost {};

struct LoadedStage {
  ModelFacts facts;
  uint32_t max_kv_blocks = 0;  // what the memory budget holds
  uint64_t weight_bytes = 0;
  uint64_t scratch_bytes = 0;
};
struct StageLoaded {
  uint64_t epoch = 0;
  absl::Status status;
  LoadedStage stage;  // when OK
};
struct KvAllocated {
  uint64_t epoch = 0;
  absl::Status status;
  uint64_t kv_bytes = 0;
};

struct IncomingHello {
  IncomingId id = 0;
  PeerKind kind = PeerKind::kControl;
  StageHello hello;
};
struct IncomingMessage {
  IncomingId id = 0;
  StageMessage message;
};
struct IncomingClosed {
  IncomingId id = 0;
  absl::Status status;
};
struct OutgoingAccepted {
  OutgoingId id = 0;
  StageHello hello;
};
struct OutgoingReply {
  OutgoingId id = 0;
  StageReply reply;
};
struct OutgoingClosed {
  OutgoingId id = 0;
  absl::Status status;  // ABORTED: the peer ended the epoch itself
};
// A link by NCCL to the next stage, or from the one before, cannot go on.
struct NcclLinkLost {
  enum class Way { kToNext, kFromPrevious };
  Way way = Way::kToNext;
  NcclLost lost;
};
// The process shall end: drains, then answers with WorkerDrained.
struct ShutDownWorker {
  absl::Duration timeout = absl::Seconds(30);
};
using WorkerEvent =
    std::variant<Welcome, CoordinatorLost, StageAssignment, StartStage, StopStage, DrainWorker,
                 StageLoaded, KvAllocated, StepComputed, OpenFailed, IncomingHello, IncomingMessage,
                 IncomingClosed, OutgoingAccepted, OutgoingReply, OutgoingClosed, NcclLinkLost,
                 StreamOpened, StreamCancelled, StreamStalled, ShutDownWorker, WorkerTick>;

// --- Effects. LoadLayers, AllocateKv, OpenSequence, CloseSequence and ComputeStep go to the
// engine in order; StageReport, StageBroken and Heartbeat to the coordinator if connected.

// Load these layers, or keep what is in memory when model, layers and formats are equal.
struct LoadLayers {
  StageAssignment assignment;
};
// Reserve the KV pool and forget every sequence: the engine's work for this epoch follows.
struct AllocateKv {
  uint64_t epoch = 0;
  uint32_t num_kv_blocks = 0;
};
struct SendOutgoing {
  OutgoingId id = 0;
  StageMessage message;
};
struct AcceptIncoming {
  IncomingId id = 0;
  StageHello hello;
  size_t max_hidden_values = 0;     // of one step; a link's messages may be that large
  LinkKind link = LinkKind::kGrpc;  // how a link's hidden states come
};
struct EndIncoming {
  IncomingId id = 0;
  absl::Status status;
};
struct SendIncoming {
  IncomingId id = 0;
  StageReply reply;
};
// Nothing is left to do; the process may end.
struct WorkerDrained {
  int num_cut_streams = 0;  // that ran when the time was up; their gateways take them elsewhere
};
using WorkerEffect =
    std::variant<LoadLayers, AllocateKv, OpenSequence, CloseSequence, ComputeStep, StageReport,
                 StageBroken, Heartbeat, OpenOutgoing, CloseOutgoing, SendOutgoing, AcceptIncoming,
                 EndIncoming, SendIncoming, StreamTokens, EndStream, WorkerDrained>;
using WorkerEffects = std::vector<WorkerEffect>;

struct WorkerOptions {
  HeadOptions head;
  absl::Duration connect_timeout = absl::Seconds(30);  // from StartStage to all streams open
};

struct WorkerCounters {
  uint64_t stale_messages = 0;  // of another epoch or an ended stream, dropped
  uint64_t epochs_started = 0;
  uint64_t epochs_broken = 0;
  // From a step's header to the hidden states it needs: the time of the stage before and of
  // the link between. Not on the first stage.
  uint64_t hidden_waits = 0;
  absl::Duration hidden_wait;
};

// A worker as a state machine: the life of its one stage (load, start, connect, serve, end)
// around a StageSession and, on the first stage, a HeadSession.
//
// Epochs: an assignment of a lower epoch than was ever seen is refused; messages of
// another epoch are dropped with a counter. When a neighbour is lost, a step is late or a
// message makes no sense, the epoch ends here: the coordinator is told whom to suspect, the
// head is sent a StageFault, streams end with UNAVAILABLE and the engine's weights stay.
// Without a coordinator the stage is served on.
//
// Thread: its owner's. Pure: no clock, no I/O.
class WorkerSession {
 public:
  explicit WorkerSession(const WorkerOptions& options);

  WorkerEffects OnEvent(WorkerEvent event, absl::Time now);

  // When the session wants a WorkerTick at the latest.
  absl::Time NextDeadline() const;

  // What it serves or tries to, for the hello and heartbeats; nothing while idle.
  std::optional<StageReport> Report() const;

  uint64_t epoch() const { return assignment_.epoch; }
  bool serving() const { return phase_ == Phase::kServing; }
  bool idle() const { return phase_ == Phase::kIdle; }
  bool draining() const { return draining_; }
  // A coordinator knows of this worker now.
  bool joined() const { return connected(); }
  const HeadSession& head() const { return head_; }
  const StageSession& stage() const { return stage_; }
  const WorkerCounters& counters() const { return counters_; }

 private:
  enum class Phase { kIdle, kLoading, kLoaded, kAllocating, kConnecting, kServing, kFailed };

  void Handle(Welcome event);
  void Handle(CoordinatorLost event);
  void Handle(StageAssignment event);
  void Handle(StartStage event);
  void Handle(StopStage event);
  void Handle(DrainWorker event);
  void Handle(StageLoaded event);
  void Handle(KvAllocated event);
  void Handle(StepComputed event);
  void Handle(OpenFailed event);
  void Handle(IncomingHello event);
  void Handle(IncomingMessage event);
  void Handle(IncomingClosed event);
  void Handle(OutgoingAccepted event);
  void Handle(OutgoingReply event);
  void Handle(OutgoingClosed event);
  void Handle(NcclLinkLost event);
  void Handle(StreamOpened event);
  void Handle(StreamCancelled event);
  void Handle(StreamStalled event);
  void Handle(ShutDownWorker event);
  void Handle(WorkerTick event);

  void BeginLoading();
  void OpenStream(OpenOutgoing open);
  void Fail(const absl::Status& status);
  void SendReport();
  void ServeIfConnected();
  absl::Status CheckHello(const IncomingHello& event) const;
  void RunStage(StageEvent event);
  void RunHead(HeadEvent event);
  void RunInner();
  void Run(StageEvent event);
  void Run(HeadEvent event);
  void Apply(OpenSequence effect);
  void Apply(CloseSequence effect);
  void Apply(ComputeStep effect);
  void Apply(HiddenStates effect);
  void Apply(StepResult effect);
  void Apply(StageFault effect);
  void Broadcast(StageMessage message);
  void Break(const PipelineLinks::Lost& lost);
  void EndEpoch(const std::string& reason);
  void BeginDrain(absl::Duration timeout);
  void WatchDrain();
  void BeatHeart();
  void MeasureWait(const StageMessage& message);
  bool connected() const { return heartbeat_ > absl::ZeroDuration(); }
  size_t MaxHiddenValues() const;
  std::string WorkerOf(int stage_index) const;

  const WorkerOptions options_;
  HeadSession head_;
  StageSession stage_;
  PipelineLinks links_;

  Phase phase_ = Phase::kIdle;
  StageAssignment assignment_;  // of the newest epoch ever seen
  LoadedStage loaded_;
  uint64_t loading_epoch_ = 0;  // the engine's load in progress; 0: none
  uint32_t num_kv_blocks_ = 0;
  uint64_t kv_bytes_ = 0;
  std::string error_;                  // kFailed
  std::optional<IncomingId> control_;  // accepted streams of this epoch
  std::optional<IncomingId> link_;
  std::deque<std::pair<uint64_t, absl::Time>> headers_;  // steps that wait for hidden states

  absl::Duration heartbeat_ = absl::ZeroDuration();  // zero: no coordinator
  absl::Time next_heartbeat_;
  bool draining_ = false;
  bool shutting_down_ = false;
  bool drained_ = false;
  int num_cut_streams_ = 0;
  absl::Time drain_deadline_;
  std::optional<absl::Time> idle_since_;  // while draining: without an open sequence
  WorkerCounters counters_;
  // Set for the time of one OnEvent.
  using InnerEvent = std::variant<StageEvent, HeadEvent>;
  std::deque<InnerEvent> inner_;
  bool report_due_ = false;
  absl::Time now_;
  WorkerEffects effects_;
};

}  // namespace sauva
