#include "engine/stage_sequences.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/sequence_state.h"

namespace sauva {
namespace {

// `words` name the field, the limit and the value found.
template <class... Words>
absl::Status Refuse(SequenceId id, const Words&... words) {
  return absl::InvalidArgumentError(absl::StrCat("sequence ", id, ": ", words...));
}

absl::Status CheckSampling(SequenceId id, const SamplingParams& sampling, int vocab_size) {
  const auto finite_from = [](float value, float least) {
    return std::isfinite(value) && value >= least;
  };
  if (!finite_from(sampling.temperature, 0)) {
    return Refuse(id, "temperature is ", sampling.temperature);
  }
  if (sampling.top_k < 0) return Refuse(id, "top_k is ", sampling.top_k);
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return Refuse(id, "top_p is ", sampling.top_p, ", not in (0, 1]");
  }
  if (!(sampling.min_p >= 0 && sampling.min_p <= 1)) {
    return Refuse(id, "min_p is ", sampling.min_p, ", not in [0, 1]");
  }
  if (!finite_from(sampling.repetition_penalty, 0) || sampling.repetition_penalty == 0) {
    return Refuse(id, "repetition_penalty is ", sampling.repetition_penalty);
  }
  if (!std::isfinite(sampling.presence_penalty) || !std::isfinite(sampling.frequency_penalty)) {
    return Refuse(id, "a presence or frequency penalty is not finite");
  }
  if (sampling.logprobs < 0 || sampling.logprobs > kMaxLogprobs) {
    return Refuse(id, "logprobs is ", sampling.logprobs, ", not in [0, ", kMaxLogprobs, "]");
  }
  if (sampling.logit_bias.size() > kMaxTokenBiases) {
    return Refuse(id, sampling.logit_bias.size(), " entries of logit_bias, more than ",
                  kMaxTokenBiases);
  }
  for (const LogitBias& bias : sampling.logit_bias) {
    if (bias.token < 0 || bias.token >= vocab_size || std::isnan(bias.bias)) {
      return Refuse(id, "logit_bias of token ", bias.token, " is ", bias.bias,
                    "; the vocabulary has ", vocab_size, " tokens");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckToken(SequenceId id, TokenId token, int vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return Refuse(id, "token ", token, " is not in the vocabulary of ", vocab_size);
}

}  // namespace

absl::Status StageSequences::Open(const OpenSequence& open) {
  const SequenceId id = open.id;
  const auto known = static_cast<int64_t>(open.tokens.size());
  if (known == 0 || known > limits_.max_context) {
    return Refuse(id, known, " tokens; the context has 1 to ", limits_.max_context);
  }
  if (open.num_prompt_tokens == 0 || open.num_prompt_tokens > known) {
    return Refuse(id, open.num_prompt_tokens, " prompt tokens of ", known, " tokens");
  }
  for (const TokenId token : open.tokens) {
    RETURN_IF_ERROR(CheckToken(id, token, limits_.vocab_size));
  }
  RETURN_IF_ERROR(CheckSampling(id, open.sampling, limits_.vocab_size));
  if (!sequences_.contains(id) && static_cast<int>(sequences_.size()) >= limits_.max_sequences) {
    return Refuse(id, "one more than the ", limits_.max_sequences, " sequences a stage knows");
  }
  StageSequence& sequence = sequences_[id];
  sequence.sampling = open.sampling;
  sequence.logit_bias.clear();
  for (const LogitBias& bias : open.sampling.logit_bias) {
    sequence.logit_bias.push_back({.token = bias.token, .bias = bias.bias});
  }
  sequence.seed = open.seed;
  sequence.sample_index = open.sample_index;
  sequence.tokens.reserve(static_cast<size_t>(limits_.max_context));
  sequence.tokens = open.tokens;
  sequence.num_prompt_tokens = static_cast<int>(open.num_prompt_tokens);
  sequence.num_computed = 0;
  sequence.tables.resize(static_cast<size_t>(limits_.num_kv_groups));
  for (std::vector<BlockId>& table : sequence.tables) {
    table.clear();
    table.reserve(static_cast<size_t>(BlocksFor(limits_.max_context)));
  }
  return absl::OkStatus();
}

absl::Status StageSequences::Apply(const StepHeader& header) {
  RETURN_IF_ERROR(CheckStep(header));
  for (const SequenceStep& step : header.sequences) {
    StageSequence& sequence = sequences_.at(step.id);
    const int end = step.first_position + static_cast<int>(step.tokens.size());
    for (int position = static_cast<int>(sequence.tokens.size()); position < end; ++position) {
      sequence.tokens.push_back(step.tokens[static_cast<size_t>(position - step.first_position)]);
    }
    for (const BlockDelta& delta : step.blocks) {
      std::vector<BlockId>& table = sequence.tables[delta.kv_group];
      table.insert(table.end(), delta.appended.begin(), delta.appended.end());
    }
    sequence.num_computed = end;
  }
  return absl::OkStatus();
}

absl::Status StageSequences::CheckStep(const StepHeader& header) {
  ++num_checked_steps_;
  if (header.sequences.empty() ||
      static_cast<int64_t>(header.sequences.size()) > limits_.max_sequences) {
    return absl::InvalidArgumentError(absl::StrCat("step ", header.step_id, " has ",
                                                   header.sequences.size(), " sequences of 1 to ",
                                                   limits_.max_sequences));
  }
  int64_t num_tokens = 0;
  for (const SequenceStep& step : header.sequences) {
    num_tokens += static_cast<int64_t>(step.tokens.size());
    if (num_tokens > limits_.max_step_tokens) {
      return absl::InvalidArgumentError(absl::StrCat("step ", header.step_id, " has more than the ",
                                                     limits_.max_step_tokens, " tokens of a step"));
    }
    const auto it = sequences_.find(step.id);
    if (it == sequences_.end()) return Refuse(step.id, "was not opened");
    if (std::exchange(it->second.last_step, num_checked_steps_) == num_checked_steps_) {
      return Refuse(step.id, "appears twice in step ", header.step_id);
    }
    RETURN_IF_ERROR(CheckSequence(it->second, step));
  }
  return absl::OkStatus();
}

absl::Status StageSequences::CheckSequence(const StageSequence& sequence,
                                           const SequenceStep& step) const {
  RETURN_IF_ERROR(CheckPositions(sequence, step));
  RETURN_IF_ERROR(CheckTokens(sequence, step));
  return CheckBlocks(sequence, step);
}

// Positions go on where they ended, or behind whole blocks that others have computed.
absl::Status StageSequences::CheckPositions(const StageSequence& sequence,
                                            const SequenceStep& step) const {
  const int first = step.first_position;
  const auto known = static_cast<int>(sequence.tokens.size());
  const bool shared = first > sequence.num_computed && first % kKvBlockTokens == 0 &&
                      sequence.num_computed % kKvBlockTokens == 0;
  if (step.tokens.empty() || first < 0 || first > known ||
      (first != sequence.num_computed && !shared)) {
    return Refuse(step.id, step.tokens.size(), " tokens from position ", first, " when ",
                  sequence.num_computed, " of ", known, " are computed");
  }
  const int64_t end = int64_t{first} + static_cast<int64_t>(step.tokens.size());
  if (end > limits_.max_context) {
    return Refuse(step.id, end, " tokens exceed the context of ", limits_.max_context);
  }
  switch (step.want) {
    case StepWant::kNone:
    case StepWant::kScore:
      return absl::OkStatus();
    case StepWant::kSample:
      if (end >= known) return absl::OkStatus();
      return Refuse(step.id, "a sample after position ", end, " when ", known, " tokens are known");
  }
  return Refuse(step.id, "wants ", static_cast<int>(step.want));
}

absl::Status StageSequences::CheckTokens(const StageSequence& sequence,
                                         const SequenceStep& step) const {
  for (size_t i = 0; i < step.tokens.size(); ++i) {
    const size_t position = static_cast<size_t>(step.first_position) + i;
    const TokenId token = step.tokens[i];
    RETURN_IF_ERROR(CheckToken(step.id, token, limits_.vocab_size));
    if (position < sequence.tokens.size() && sequence.tokens[position] != token) {
      return Refuse(step.id, "token ", token, " at position ", position, " is known as ",
                    sequence.tokens[position]);
    }
  }
  return absl::OkStatus();
}

absl::Status StageSequences::CheckBlocks(const StageSequence& sequence,
                                         const SequenceStep& step) const {
  const int end = step.first_position + static_cast<int>(step.tokens.size());
  for (size_t group = 0; group < sequence.tables.size(); ++group) {
    size_t num_blocks = sequence.tables[group].size();
    for (const BlockDelta& delta : step.blocks) {
      if (delta.kv_group == group) num_blocks += delta.appended.size();
    }
    if (num_blocks != static_cast<size_t>(BlocksFor(end))) {
      return Refuse(step.id, num_blocks, " blocks in KV group ", group, " for ", end, " tokens");
    }
  }
  for (const BlockDelta& delta : step.blocks) {
    if (delta.kv_group >= sequence.tables.size()) {
      return Refuse(step.id, "KV group ", delta.kv_group, " of ", sequence.tables.size());
    }
    for (const BlockId block : delta.appended) {
      if (block < 0 || block >= limits_.num_kv_blocks) {
        return Refuse(step.id, "block ", block, " of ", limits_.num_kv_blocks);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace sauva
