#include "engine/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {

double Moments::Mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }

double Moments::StandardError() const {
  if (count < 2) return 0;
  const auto n = static_cast<double>(count);
  const double variance = (squares - sum * sum / n) / (n - 1);
  return std::sqrt(std::max(0.0, variance) / n);
}

absl::StatusOr<std::vector<TextWindow>> CutIntoWindows(int64_t size, int max_context,
                                                       const PerplexityOptions& options) {
  const int64_t context = options.context > 0 ? options.context : max_context;
  const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, context / 2);
  if (size < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", size, " tokens has no perplexity; it takes at least 2"));
  }
  if (context < 2 || context > max_context || stride >= context) {
    return absl::InvalidArgumentError(absl::StrCat("windows of ", context, " tokens every ", stride,
                                                   "; the context is ", max_context));
  }
  std::vector<TextWindow> windows;
  int64_t scored = 1;  // tokens before this index are done
  for (int64_t first = 0; scored < size; first += stride) {
    const int64_t end = std::min(first + context, size);
    windows.push_back({.first = first, .end = end, .scored = scored});
    scored = end;
  }
  return windows;
}

absl::StatusOr<Perplexity> MeasurePerplexity(
    LocalPipeline& pipeline, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(int64_t done, int64_t all)>& progress) {
  const auto size = static_cast<int64_t>(tokens.size());
  ASSIGN_OR_RETURN(const std::vector<TextWindow> windows,
                   CutIntoWindows(size, pipeline.max_context(), options));
  const auto start = std::chrono::steady_clock::now();
  Perplexity result;
  Moments nats;
  for (const TextWindow& window : windows) {
    ASSIGN_OR_RETURN(const std::vector<float> scores,
                     pipeline.Score({tokens.begin() + window.first, tokens.begin() + window.end}));
    // scores[i] is of token first + 1 + i.
    for (int64_t i = window.scored; i < window.end; ++i) {
      nats.Add(-static_cast<double>(scores[static_cast<size_t>(i - window.first - 1)]));
    }
    result.num_computed += window.end - window.first;
    if (progress) progress(window.end - 1, size - 1);
  }
  result.num_tokens = size - 1;
  result.perplexity = std::exp(nats.Mean());
  result.standard_error = result.perplexity * nats.StandardError();
  if (options.text_bytes > 0) {
    result.bits_per_byte = nats.sum / std::numbers::ln2 / static_cast<double>(options.text_bytes);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (result.seconds > 0) {
    result.tokens_per_second = static_cast<double>(result.num_computed) / result.seconds;
  }
  return result;
}

}  // namespace sauva
