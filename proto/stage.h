#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "proto/generation.h"

// The words of the stage plane as plain values; stage_codec translates them.
namespace sauva {

// Bytes of what two ranks of NCCL meet with.
inline constexpr size_t kNcclIdBytes = 128;

using SequenceId = uint64_t;  // the head's counter, unique within an epoch
using BlockId = int32_t;

inline constexpr int kKvBlockTokens = 16;

// Tells a stage all it must know of a sequence; sent again after a preemption, which
// replaces what was known and empties the block tables.
struct OpenSequence {
  SequenceId id = 0;
  SamplingParams sampling;
  uint64_t seed = 0;
  uint32_t sample_index = 0;
  std::vector<TokenId> tokens;  // all known: prompt, then generated
  uint32_t num_prompt_tokens = 0;
  bool operator==(const OpenSequence&) const = default;
};

struct CloseSequence {
  SequenceId id = 0;
};

struct BlockDelta {
  uint32_t kv_group = 0;
  std::vector<BlockId> appended;
  bool operator==(const BlockDelta&) const = default;
};

enum class StepWant {
  kNone,    // an inner chunk of a prompt
  kSample,  // the token that follows the step's last one
  kScore,   // log-probabilities of the known tokens that follow the step's tokens
};

struct SequenceStep {
  SequenceId id = 0;
  int first_position = 0;       // of tokens[0] in the sequence
  std::vector<TokenId> tokens;  // run through the model in this step
  std::vector<BlockDelta> blocks;
  StepWant want = StepWant::kNone;
  bool operator==(const SequenceStep&) const = default;
};

struct StepHeader {
  uint64_t epoch = 0;
  uint64_t step_id = 0;  // from 1, without gaps
  std::vector<SequenceStep> sequences;

  int num_tokens() const {
    int total = 0;
    for (const SequenceStep& s : sequences) total += static_cast<int>(s.tokens.size());
    return total;
  }
  bool operator==(const StepHeader&) const = default;
};

struct SampledToken {
  SequenceId id = 0;
  TokenId token = 0;
  std::vector<TokenLogprobs> logprobs;  // empty, or one entry when asked for
  // kScore only: entry i is the natural log-probability of the token that follows the
  // step's token i; one per token of the step whose successor is known.
  std::vector<float> scores;
  bool operator==(const SampledToken&) const = default;
};

// From every stage once it has computed a step; the last stage adds the tokens, one per
// sequence of the header that wanted something, in the header's order.
struct StepResult {
  uint64_t epoch = 0;
  uint64_t step_id = 0;
  std::vector<SampledToken> sampled;
  double compute_seconds = 0;
};

struct StageHello {
  uint64_t epoch = 0;
  int from_stage = 0;
  int to_stage = 0;
  std::string numerics_id;
  uint32_t protocol_version = 0;
};

struct StageFault {
  uint64_t epoch = 0;
  std::string reason;
  std::string suspect_worker_id;
};

// A whole step's hidden states between two stages: f32, row-major [tokens, hidden].
struct HiddenStates {
  uint64_t epoch = 0;
  uint64_t step_id = 0;
  std::vector<float> values;
};

// A step whose hidden states come by another way than the link's stream.
struct HiddenAnnounced {
  uint64_t epoch = 0;
  uint64_t step_id = 0;
  uint64_t num_values = 0;
};

}  // namespace sauva
