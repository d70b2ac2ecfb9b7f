#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/block_pool.h"
#include "engine/scheduler.h"
#include "proto/stage.h"

namespace sauva {

constexpr int BlocksFor(int num_tokens) {
  return (num_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
}

enum class SequencePhase {
  kWaiting,   // in the queue; no blocks
  kRunning,   // holds blocks, or may
  kLeaving,   // cancelled while a step was in flight; keeps its blocks until that returns
  kComplete,  // nothing left to compute; no blocks; known until it is cancelled
};

// A sequence as the scheduler keeps it.
struct SequenceState {
  SequenceId id = 0;
  SamplingParams sampling;
  uint32_t sample_index = 0;
  StepWant want = StepWant::kSample;
  uint64_t arrival = 0;  // smaller is older

  std::vector<TokenId> tokens;  // all known: prompt, then completion
  int num_prompt_tokens = 0;
  int max_tokens = 0;     // of prompt and completion together
  int num_computed = 0;   // leading tokens whose keys and values are in the cache
  int num_in_flight = 0;  // tokens of the step in flight; 0: in none
  int num_scored = 0;     // kScore: scores reported so far
  int num_cached = 0;     // prompt tokens that were not computed but found

  SequencePhase phase = SequencePhase::kWaiting;
  bool opened = false;         // stages know it as it is
  bool was_preempted = false;  // what is found now was computed for itself before
  std::vector<BlockId> blocks;
  std::vector<ContentId> contents;  // of the leading blocks whose tokens were all known
  int num_announced_blocks = 0;     // stages have them in their tables

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  int num_blocks() const { return static_cast<int>(blocks.size()); }
  int num_pending() const { return num_tokens() - num_computed; }
  bool in_flight() const { return num_in_flight > 0; }

  // Positions that may ever be computed: the last token of a completion never is.
  int max_positions() const { return want == StepWant::kScore ? max_tokens : max_tokens - 1; }
  // Blocks to compute all known tokens and the next one.
  int num_needed_blocks() const { return BlocksFor(std::min(num_tokens() + 1, max_positions())); }
  bool complete() const {
    return want == StepWant::kScore ? num_pending() == 0 : num_tokens() >= max_tokens;
  }

  // After a preemption: each score is reported once.
  bool recomputes_scores() const { return want == StepWant::kScore && num_computed < num_scored; }

  ContentId last_content() const { return contents.empty() ? kTextStart : contents.back(); }
  // Block `index` of the text is shareable when all its tokens are known.
  bool knows_block(int index) const { return (index + 1) * kKvBlockTokens <= num_tokens(); }
  BlockTokens block_tokens(int index) const {
    return BlockTokens(tokens.data() + index * kKvBlockTokens, kKvBlockTokens);
  }
};

// Errors: INVALID_ARGUMENT for a sequence that is malformed or would not fit alone.
absl::Status CheckFits(const NewSequence& sequence, const SchedulerLimits& limits);

SequenceState MakeState(NewSequence sequence, const SchedulerLimits& limits);

}  // namespace sauva
