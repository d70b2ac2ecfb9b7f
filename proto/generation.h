#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// The words of generation as plain values; generation_codec translates them from and to
// protobuf and validates them once.
namespace sauva {

using TokenId = int32_t;

struct LogitBias {
  TokenId token = 0;
  float bias = 0;  // added to the logit before temperature
  bool operator==(const LogitBias&) const = default;
};

// How a token is drawn from the logits. Neutral values switch a control off.
struct SamplingParams {
  float temperature = 1;         // 0: the likeliest token
  int top_k = 0;                 // 0: all tokens
  float top_p = 1;               // 1: off
  float min_p = 0;               // 0: off
  float repetition_penalty = 1;  // over prompt and completion; 1: off
  float presence_penalty = 0;    // over the completion
  float frequency_penalty = 0;   // over the completion
  int max_tokens = 0;            // of the completion, resumed ones included; 0: fill the context
  std::vector<std::string> stop;
  std::vector<TokenId> stop_tokens;
  std::optional<uint64_t> seed;  // always set behind the gateway
  int n = 1;
  int logprobs = 0;  // alternatives reported per token; 0: none
  std::vector<LogitBias> logit_bias;
  bool ignore_eos = false;
  bool operator==(const SamplingParams&) const = default;
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // likeliest first, ties by token id
  bool operator==(const TokenLogprobs&) const = default;
};

enum class FinishReason { kNone, kStop, kLength };

// A stretch of a sample's way through its pipeline: steps of one kind in a row. Times are
// seconds since the head took the sample.
struct StepPhase {
  // kPrefill: tokens that were known are computed; kDecode: a step brings one new token.
  enum class Kind { kPrefill, kDecode };
  Kind kind = Kind::kPrefill;
  double begin_seconds = 0;  // of the first step
  double end_seconds = 0;    // of the last one's result
  uint32_t steps = 0;
  uint32_t tokens = 0;                // computed
  std::vector<double> stage_seconds;  // per stage: what it computed at in these steps
  bool operator==(const StepPhase&) const = default;
};
// Later ones are added to the last of their kind.
inline constexpr size_t kMaxStepPhases = 8;

// One sample of a request on its way from a gateway to a pipeline's head.
struct SequenceRequest {
  uint64_t epoch = 0;
  std::string request_id;
  uint32_t sample_index = 0;
  std::vector<TokenId> prompt;
  std::vector<TokenId> resumed;  // tokens of the completion already delivered
  SamplingParams sampling;       // seed set; max_tokens set
  std::vector<TokenId> eos_tokens;
  bool with_phases = false;  // answers tell phases
};

// What a head sends back: some tokens of the completion, in order, without gaps.
struct SequenceTokens {
  uint32_t first_index = 0;  // within the completion, resumed tokens counted
  std::vector<TokenId> tokens;
  std::vector<TokenLogprobs> logprobs;  // one per token when asked for
  FinishReason finish = FinishReason::kNone;
  uint32_t cached_tokens = 0;  // first message
  std::string numerics_id;     // first message, which carries no token
  // With tokens, when asked for: all so far.
  std::vector<StepPhase> phases;
};

}  // namespace sauva
