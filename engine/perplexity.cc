#include "engine/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {

absl::StatusOr<Perplexity> MeasurePerplexity(
    LocalPipeline& pipeline, std::span<const TokenId> tokens, const PerplexityOptions& options,
    const std::function<void(int64_t done, int64_t all)>& progress) {
  const int64_t context = options.context > 0 ? options.context : pipeline.max_context();
  const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, context / 2);
  const auto size = static_cast<int64_t>(tokens.size());
  if (size < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", size, " tokens has no perplexity; it takes at least 2"));
  }
  if (context < 2 || context > pipeline.max_context() || stride >= context) {
    return absl::InvalidArgumentError(absl::StrCat("windows of ", context, " tokens every ", stride,
                                                   "; the context is ", pipeline.max_context()));
  }
  const auto start = std::chrono::steady_clock::now();
  Perplexity result;
  double sum = 0;
  int64_t scored = 1;  // tokens before this index are done
  for (int64_t first = 0; scored < size; first += stride) {
    const int64_t end = std::min(first + context, size);
    ASSIGN_OR_RETURN(const std::vector<float> scores,
                     pipeline.Score({tokens.begin() + first, tokens.begin() + end}));
    // scores[i] is of token first + 1 + i.
    for (int64_t i = scored; i < end; ++i) {
      sum -= static_cast<double>(scores[static_cast<size_t>(i - first - 1)]);
    }
    result.num_computed += end - first;
    scored = end;
    if (progress) progress(scored - 1, size - 1);
  }
  result.num_tokens = size - 1;
  result.perplexity = std::exp(sum / static_cast<double>(result.num_tokens));
  if (options.text_bytes > 0) {
    result.bits_per_byte = sum / std::numbers::ln2 / static_cast<double>(options.text_bytes);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (result.seconds > 0) {
    result.tokens_per_second = static_cast<double>(result.num_computed) / result.seconds;
  }
  return result;
}

}  // namespace sauva
