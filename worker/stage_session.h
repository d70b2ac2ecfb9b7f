#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "proto/control.h"
#include "proto/stage.h"
#include "worker/session_types.h"

namespace sauva {

// --- Events. Those from the head are OpenSequence, CloseSequence and StepHeader.

// The stage is loaded, its KV cache allocated: work of this epoch is taken from now on.
struct StageStarted {
  StageAssignment assignment;
  uint32_t num_kv_blocks = 0;
  ModelFacts facts;
};
// The step last given to the engine is done, or the engine refused it.
struct StepComputed {
  uint64_t epoch = 0;
  uint64_t step_id = 0;
  absl::Status status;
  std::vector<float> hidden;          // [tokens, hidden_size]; empty on the last stage
  std::vector<SampledToken> sampled;  // last stage only
  double compute_seconds = 0;
};
// The engine refused to open a sequence.
struct OpenFailed {
  uint64_t epoch = 0;
  absl::Status status;
};
// The epoch is over here; held work is forgotten.
struct StageStopped {};
using StageEvent = std::variant<StageStarted, OpenSequence, CloseSequence, StepHeader, HiddenStates,
                                StepComputed, OpenFailed, StageStopped>;

// --- Effects. OpenSequence, CloseSequence and ComputeStep go to the engine, in order.

struct ComputeStep {
  StepHeader header;
  std::vector<float> hidden;  // [tokens, hidden_size]; empty on the first stage
};
// HiddenStates go to the next stage, StepResult and StageFault to the head. After a
// StageFault the session holds nothing and takes nothing until it is started again.
using StageEffect =
    std::variant<OpenSequence, CloseSequence, ComputeStep, HiddenStates, StepResult, StageFault>;
using StageEffects = std::vector<StageEffect>;

struct StageCounters {
  uint64_t steps_done = 0;
  uint64_t tokens_done = 0;
  double step_seconds = 0;
  uint64_t stale_messages = 0;  // of another epoch or after a fault, dropped
};

// One stage of a pipeline as a state machine: merges what the head says with the hidden
// states of the stage before by step id, and gives the engine one step at a time, in
// order. What a peer sends is input: gaps in step ids, unknown sequences, sizes that do
// not fit and more steps than a pipeline of this length can have in flight are faults.
// What it holds is bounded: num_stages + kSpareSteps steps with their hidden states, and
// kMaxControlPerSequence opens and closes per sequence that may run.
//
// Thread: its owner's. Pure: no clock, no I/O.
class StageSession {
 public:
  static constexpr int kSpareSteps = 2;
  static constexpr int kMaxControlPerSequence = 4;

  StageEffects OnEvent(StageEvent event);

  bool started() const { return started_; }
  bool computing() const { return computing_.has_value(); }
  int num_open_sequences() const { return static_cast<int>(open_.size()); }
  int num_held_steps() const { return num_pending_steps_; }
  int num_held_hidden() const { return static_cast<int>(hidden_.size()); }
  // Of the current epoch, except stale_messages, which counts since the process started.
  const StageCounters& counters() const { return counters_; }

 private:
  struct Computing {
    uint64_t step_id = 0;
    int num_tokens = 0;
  };
  using Pending = std::variant<OpenSequence, CloseSequence, StepHeader>;

  void Handle(StageStarted event);
  void Handle(OpenSequence event);
  void Handle(CloseSequence event);
  void Handle(StepHeader event);
  void Handle(HiddenStates event);
  void Handle(StepComputed event);
  void Handle(OpenFailed event);
  void Handle(StageStopped event);

  absl::Status CheckHeader(const StepHeader& header) const;
  absl::Status CheckSequenceStep(const SequenceStep& step) const;
  absl::Status CheckHidden(const HiddenStates& hidden) const;
  absl::Status CheckOutput(const StepComputed& step) const;
  void Hold(Pending pending);
  void GiveWork();
  bool GiveStep(StepHeader& header);
  void Fault(const absl::Status& status, std::string suspect_worker_id);
  void Forget();
  int max_held_steps() const { return static_cast<int>(assignment_.stages.size()) + kSpareSteps; }
  const std::string& worker_of(int stage_index) const;

  bool started_ = false;
  StageAssignment assignment_;
  ModelFacts facts_;
  uint32_t num_kv_blocks_ = 0;
  std::set<SequenceId> open_;  // as told by the head, held messages counted
  std::deque<Pending> pending_;
  int num_pending_steps_ = 0;
  uint64_t last_header_id_ = 0;
  std::deque<HiddenStates> hidden_;
  uint64_t last_hidden_id_ = 0;
  std::optional<Computing> computing_;
  StageCounters counters_;
  StageEffects effects_;  // set for the time of one OnEvent
};

}  // namespace sauva
