#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/scheduler.h"
#include "proto/control.h"
#include "proto/generation.h"
#include "proto/stage.h"
#include "worker/session_types.h"
#include "worker/step_times.h"

namespace sauva {

// --- Events

// The pipeline of this epoch is connected: requests are taken from now on.
struct HeadStart {
  StageAssignment assignment;
  uint32_t num_kv_blocks = 0;
  ModelFacts facts;
};
// A gateway asks for one sample.
struct StreamOpened {
  StreamId stream = 0;
  SequenceRequest request;
};
// The caller went away or its deadline passed; nothing more is sent to this stream.
struct StreamCancelled {
  StreamId stream = 0;
};
// More waits to be sent on this stream than its transport holds: the reader does not keep
// up. Nothing but the stream's end is sent any more.
struct StreamStalled {
  StreamId stream = 0;
};
// A stage of the pipeline has computed a step.
struct StageResult {
  int stage_index = 0;
  StepResult result;
};
// The pipeline cannot go on; somebody else has reported it.
struct PipelineBroken {
  std::string reason;
};
// No new streams; those that run may end.
struct HeadDrain {};
using HeadEvent = std::variant<HeadStart, StreamOpened, StreamCancelled, StreamStalled, StageResult,
                               PipelineBroken, HeadDrain, WorkerTick>;

// --- Effects; open, close and step go to every stage of the pipeline, the own one too, in
// the order in which they appear.

struct StreamTokens {
  StreamId stream = 0;
  SequenceTokens tokens;
};
// OK after a finish reason was sent. Nothing follows on this stream.
struct EndStream {
  StreamId stream = 0;
  absl::Status status;
};
// The head found its pipeline broken and has ended every stream of the epoch.
struct HeadBroken {
  StageBroken broken;
};
using HeadEffect =
    std::variant<OpenSequence, CloseSequence, StepHeader, StreamTokens, EndStream, HeadBroken>;
using HeadEffects = std::vector<HeadEffect>;

struct HeadOptions {
  int max_waiting = 1024;                // sequences queued
  int64_t max_waiting_tokens = 1 << 20;  // prompt and completion tokens of the queue
  // A step's time starts when it is the oldest in flight.
  absl::Duration step_timeout = absl::Seconds(10);
};

// What happened since the process started; read by metrics.
struct HeadCounters {
  uint64_t prompt_tokens = 0;  // of accepted requests
  uint64_t cached_tokens = 0;  // of those, taken from the prefix cache
  uint64_t generation_tokens = 0;
  uint64_t preemptions = 0;
  uint64_t resumed_requests = 0;
  uint64_t stale_messages = 0;  // of another epoch, dropped
  std::map<FinishReason, uint64_t> finished;
  std::map<absl::StatusCode, uint64_t> refusals;  // streams refused before their first token
  std::map<absl::StatusCode, uint64_t> failures;  // accepted streams that did not finish
};

// The head of a pipeline as a state machine: takes requests, has the scheduler make steps
// of them, keeps up to one step per stage in flight and turns results into streams.
//
// A stream gets one message without tokens when its sequence first runs (numerics_id,
// cached_tokens), then tokens as they come, the last with a finish reason, then
// EndStream. The token that ended a completion (end of sequence or stop token) is among
// the tokens: whoever makes text of them leaves it out. Finish reasons are kStop for such
// a token and kLength for max_tokens or a full context.
// Refusals: FAILED_PRECONDITION (another epoch), UNAVAILABLE (not serving, draining),
// INVALID_ARGUMENT (names field, limit and value), RESOURCE_EXHAUSTED (queue full).
// When the pipeline breaks, open streams end with UNAVAILABLE and can be resumed
// elsewhere. A stream whose reader does not keep up ends with RESOURCE_EXHAUSTED.
//
// Thread: its owner's. Pure: no clock, no I/O.
class HeadSession {
 public:
  explicit HeadSession(const HeadOptions& options);
  ~HeadSession();

  HeadEffects OnEvent(HeadEvent event, absl::Time now);

  // When the session wants a WorkerTick at the latest; never while no step is in flight.
  absl::Time NextDeadline() const;

  bool serving() const { return scheduler_ != nullptr; }
  bool draining() const { return draining_; }
  int num_streams() const { return static_cast<int>(sequence_of_.size()); }
  int num_running() const;
  int num_waiting() const;
  int num_free_blocks() const;
  int num_steps_in_flight() const { return static_cast<int>(in_flight_.size()); }
  HeadCounters counters() const;

  // Every invariant it can check of itself; for tests and the simulator.
  void CheckInvariants() const;

 private:
  struct Sequence {
    StreamId stream = 0;
    SequenceRequest request;
    uint32_t num_completion_tokens = 0;  // resumed ones counted
    uint32_t max_completion_tokens = 0;  // max_tokens or what the context holds
    bool sent_token = false;             // on this stream
    bool opened = false;                 // stages know it
    absl::Time taken_at;
    std::vector<StepPhase> phases;  // when asked for
  };
  struct StepInFlight {
    uint64_t id = 0;
    std::optional<StepTimes> times;  // when one of its sequences has asked
  };

  void Handle(HeadStart event);
  void Handle(StreamOpened event);
  void Handle(StreamCancelled event);
  void Handle(StreamStalled event);
  void Handle(StageResult event);
  void Handle(PipelineBroken event);
  void Handle(HeadDrain event);
  void Handle(WorkerTick event);

  absl::Status Admit(const SequenceRequest& request) const;
  bool FinishAtOnce(StreamId stream, const SequenceRequest& request);
  void StartSteps();
  std::optional<StepTimes> TimesOf(const StepHeader& header) const;
  void NotePhases(const StepTimes& times);
  void SendOpen(OpenSequence open);
  void FinishOldestStep(const StepResult& result);
  absl::Status CheckSampled(const StepResult& result) const;
  void DeliverToken(const SampledToken& sampled);
  FinishReason FinishOf(const Sequence& sequence, TokenId token) const;
  void Remove(SequenceId id);
  void Break(std::string suspect_worker_id, std::string reason);
  void EndAllStreams(const absl::Status& status);
  size_t SlowestStage(uint64_t step_id) const;
  uint64_t epoch() const { return assignment_.epoch; }

  const HeadOptions options_;
  StageAssignment assignment_;
  ModelFacts facts_;
  std::unique_ptr<Scheduler> scheduler_;  // while serving
  std::map<SequenceId, Sequence> sequences_;
  std::map<StreamId, SequenceId> sequence_of_;
  SequenceId last_sequence_id_ = 0;
  std::deque<StepInFlight> in_flight_;  // oldest first
  std::vector<uint64_t> steps_done_;    // per stage: the last step it has answered
  uint64_t last_step_id_ = 0;
  absl::Time oldest_since_;  // since when the oldest step in flight is the oldest
  bool draining_ = false;
  HeadCounters counters_;
  // Set for the time of one OnEvent.
  absl::Time now_;
  HeadEffects effects_;
};

}  // namespace sauva
