#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling.h"
#include "proto/stage.h"

namespace sauva {

// A sequence as a stage knows it.
struct StageSequence {
  SamplingParams sampling;
  std::vector<TokenBias> logit_bias;
  uint64_t seed = 0;
  uint32_t sample_index = 0;
  std::vector<TokenId> tokens;  // all known
  int num_prompt_tokens = 0;
  int num_computed = 0;                      // leading tokens that are in the cache
  std::vector<std::vector<BlockId>> tables;  // per KV group
  uint64_t last_step = 0;                    // the step that named it last
};

struct StageSequenceLimits {
  int vocab_size = 0;
  int max_context = 0;
  int max_sequences = 0;
  int max_step_tokens = 0;
  int num_kv_groups = 1;
  int num_kv_blocks = 0;
};

// What a stage was told of sequences. What it is told is input: a message is either taken
// as a whole or refused and changes nothing.
// Thread: the step thread.
class StageSequences {
 public:
  explicit StageSequences(const StageSequenceLimits& limits) : limits_(limits) {}

  void set_num_kv_blocks(int num_blocks) { limits_.num_kv_blocks = num_blocks; }
  const StageSequenceLimits& limits() const { return limits_; }

  // Replaces what was known of the sequence and empties its block tables.
  // Errors: INVALID_ARGUMENT naming sequence and field.
  absl::Status Open(const OpenSequence& sequence);
  void Close(SequenceId id) { sequences_.erase(id); }
  void Clear() { sequences_.clear(); }

  // Takes a step's tokens and blocks. Allocates nothing.
  // Errors: INVALID_ARGUMENT for a header that contradicts what is known.
  absl::Status Apply(const StepHeader& header);

  // A sequence of the step just applied.
  const StageSequence& Get(SequenceId id) const { return sequences_.at(id); }

 private:
  absl::Status CheckStep(const StepHeader& header);
  absl::Status CheckSequence(const StageSequence& sequence, const SequenceStep& step) const;
  absl::Status CheckPositions(const StageSequence& sequence, const SequenceStep& step) const;
  absl::Status CheckTokens(const StageSequence& sequence, const SequenceStep& step) const;
  absl::Status CheckBlocks(const StageSequence& sequence, const SequenceStep& step) const;

  StageSequenceLimits limits_;
  std::unordered_map<SequenceId, StageSequence> sequences_;
  uint64_t num_checked_steps_ = 0;
};

}  // namespace sauva
