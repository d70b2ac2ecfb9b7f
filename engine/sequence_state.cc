#include "engine/sequence_state.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

int64_t Size(const std::vector<TokenId>& tokens) { return static_cast<int64_t>(tokens.size()); }

// The most tokens, prompt included, the sequence may ever have.
int64_t MaxTokens(const NewSequence& sequence, const SchedulerLimits& limits) {
  if (sequence.want == StepWant::kScore) return Size(sequence.prompt);
  if (sequence.sampling.max_tokens > 0) {
    return Size(sequence.prompt) + sequence.sampling.max_tokens;
  }
  // The last token of a completion needs no room in the cache.
  const int64_t pool_tokens = int64_t{limits.num_kv_blocks} * kKvBlockTokens + 1;
  return std::min<int64_t>(limits.max_context, pool_tokens);
}

absl::Status CheckWellFormed(const NewSequence& sequence) {
  if (sequence.prompt.empty()) return absl::InvalidArgumentError("the prompt has no token");
  if (sequence.sampling.max_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is negative: ", sequence.sampling.max_tokens));
  }
  if (sequence.want == StepWant::kNone) {
    return absl::InvalidArgumentError("a sequence wants samples or scores");
  }
  if (sequence.want == StepWant::kScore && !sequence.resumed.empty()) {
    return absl::InvalidArgumentError("a text to be scored has no completion");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFits(const NewSequence& sequence, const SchedulerLimits& limits) {
  if (absl::Status status = CheckWellFormed(sequence); !status.ok()) return status;
  const bool scores = sequence.want == StepWant::kScore;
  const int64_t total = MaxTokens(sequence, limits);
  const int64_t known = Size(sequence.prompt) + Size(sequence.resumed);
  if (std::max(total, known) > limits.max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sequence of ", std::max(total, known), " tokens (prompt ",
                     sequence.prompt.size(), ") exceeds the context of ", limits.max_context));
  }
  if (!scores && known >= total) {
    return absl::InvalidArgumentError(
        absl::StrCat("nothing left to generate: ", known, " tokens known of at most ", total));
  }
  const int needed = BlocksFor(static_cast<int>(scores ? total : total - 1));
  if (needed > limits.num_kv_blocks) {
    return absl::InvalidArgumentError(absl::StrCat("a sequence of up to ", total, " tokens needs ",
                                                   needed, " KV blocks; the pipeline has ",
                                                   limits.num_kv_blocks));
  }
  return absl::OkStatus();
}

SequenceState MakeState(NewSequence sequence, const SchedulerLimits& limits) {
  SequenceState state;
  state.id = sequence.id;
  state.sample_index = sequence.sample_index;
  state.want = sequence.want;
  state.num_prompt_tokens = static_cast<int>(sequence.prompt.size());
  state.max_tokens = static_cast<int>(MaxTokens(sequence, limits));
  state.sampling = std::move(sequence.sampling);
  state.tokens = std::move(sequence.prompt);
  state.tokens.insert(state.tokens.end(), sequence.resumed.begin(), sequence.resumed.end());
  return state;
}

}  // namespace sauva
