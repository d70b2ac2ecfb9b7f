#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "proto/stage.h"

namespace sauva {

struct SchedulerLimits {
  int num_kv_blocks = 0;
  int num_kv_groups = 1;
  int max_step_tokens = 256;             // tokens a step may compute over all sequences
  int max_sequences = 64;                // running at once
  int max_waiting = 1024;                // queue length
  int64_t max_waiting_tokens = 1 << 20;  // prompt + completion tokens of the queue
  int max_context = 0;                   // tokens of one sequence
  int max_steps_in_flight = 1;           // number of stages
  bool prefix_cache = true;
};

// A sequence as the scheduler needs to know it.
struct NewSequence {
  SequenceId id = 0;
  SamplingParams sampling;  // seed and max_tokens set
  uint32_t sample_index = 0;
  std::vector<TokenId> prompt;
  std::vector<TokenId> resumed;
  // kSample: continue the text. kScore: score every token of it and end; needs no resumed
  // tokens and no max_tokens.
  StepWant want = StepWant::kSample;
};

// What one step asks of the pipeline: messages for every stage, in this order.
struct ScheduledStep {
  std::vector<OpenSequence> opened;
  StepHeader header;  // epoch is left 0 for the caller
};

// Continuous batching by one rule: there is no prefill phase and no decode phase; each
// step hands out a token budget so that computed tokens catch up with known tokens.
// Running sequences first, then waiting ones in order; nobody overtakes. When blocks run
// out the youngest is preempted, and recomputed later. Full blocks of equal prefixes are
// shared: a sequence whose next block another one is just computing waits for it.
// A sequence is in at most one step in flight.
// Pure: no clock, no I/O. Thread: its owner's.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);
  ~Scheduler();

  // Errors: RESOURCE_EXHAUSTED when the queue is full; INVALID_ARGUMENT when the sequence
  // could not fit alone (names needed and available).
  absl::Status Add(NewSequence sequence);

  // Forgets a sequence; its blocks are free at once unless a step in flight still writes
  // them, else when that step returns. True if it was known.
  bool Cancel(SequenceId id);

  // The next step, or nothing when there is nothing to do or the pipeline is full.
  std::optional<ScheduledStep> NextStep();

  // Takes the sampled tokens of the oldest step in flight.
  // Errors: INVALID_ARGUMENT when the result does not match the step.
  absl::Status FinishStep(const StepResult& result);

  // The owner decides when a sequence ends: after FinishStep it looks at the new token and
  // calls Cancel for those that are done. One that has reached max_tokens gives its blocks
  // back by itself and is scheduled no more, but is known until it is cancelled.
  int num_running() const;
  int num_waiting() const;
  int num_free_blocks() const;  // never used or reclaimable
  int num_steps_in_flight() const;
  int num_cached_tokens(SequenceId id) const;  // prompt tokens taken from the prefix cache
  uint64_t num_preemptions() const;

  // Every invariant it can check of itself; for tests and the simulator.
  void CheckInvariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sauva
