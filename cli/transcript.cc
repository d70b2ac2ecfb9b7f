#include "cli/transcript.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sauva {
namespace {

const char* Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kNone:
      break;
  }
  return "none";
}

}  // namespace

bool Transcript::Add(const GeneratedPiece& piece, absl::Duration elapsed) {
  if (piece.seed && !seed_) seed_ = piece.seed;
  if (piece.sample_index >= samples_.size()) return false;
  TranscriptSample& sample = samples_[piece.sample_index];
  if (sample.finish != FinishReason::kNone) return false;
  if (!piece.tokens.empty() && !sample.first_token) sample.first_token = elapsed;
  sample.text += piece.text;
  sample.tokens.insert(sample.tokens.end(), piece.tokens.begin(), piece.tokens.end());
  sample.finish = piece.finish;
  sample.prompt_tokens = piece.prompt_tokens.value_or(sample.prompt_tokens);
  sample.total = elapsed;
  return true;
}

bool Transcript::complete() const {
  return std::all_of(samples_.begin(), samples_.end(), [](const TranscriptSample& sample) {
    return sample.finish != FinishReason::kNone;
  });
}

bool Transcript::started() const {
  return std::any_of(samples_.begin(), samples_.end(),
                     [](const TranscriptSample& sample) { return !sample.tokens.empty(); });
}

std::string SampleJson(const TranscriptSample& sample) {
  const absl::Duration first = sample.first_token.value_or(sample.total);
  const nlohmann::ordered_json json = {
      {"text", sample.text},
      {"token_ids", sample.tokens},
      {"finish_reason", Name(sample.finish)},
      {"usage",
       {{"prompt_tokens", sample.prompt_tokens}, {"completion_tokens", sample.tokens.size()}}},
      {"timing",
       {{"time_to_first_token_ms", absl::ToDoubleMilliseconds(first)},
        {"total_ms", absl::ToDoubleMilliseconds(sample.total)}}}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sauva
