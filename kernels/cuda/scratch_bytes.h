#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/step_graphs.h"
#include "kernels/numerics.h"
#include "kernels/sampling.h"

// Sizes of what the backend keeps on the device for steps, for those who allocate it and those who
// plan. Units: bytes, unless a name says otherwise.
namespace sauva::cuda {

// The arrays of a step: three numbers a token, two a sequence, block tables.
constexpr int64_t StepTableBytes(const StepLimits& limits) {
  const int64_t sequences = limits.max_sequences;
  const int64_t tables = limits.num_kv_groups * sequences * limits.max_blocks_per_sequence;
  return 4 * (3 * int64_t{limits.max_tokens} + 2 * sequences + 1 + tables);
}

// The most spans of the numerics contract that a step can have.
constexpr int MostSpans(const StepLimits& limits) {
  return limits.max_blocks_per_sequence * kAttentionBlock / kAttentionSpan + 1;
}

// Rows of a step in which every sequence goes on by one token.
constexpr int MostDecodeRows(const StepLimits& limits) {
  return std::min(limits.max_tokens, limits.max_sequences);
}

constexpr StepGraphs::Limits GraphLimits(const StepLimits& limits) {
  return {.max_decode_rows = MostDecodeRows(limits),
          .max_sampled_rows = limits.max_sequences,
          .max_spans = MostSpans(limits)};
}

// Sums of attention over spans, where there are several: few rows are cut into spans that run side
// by side.
constexpr int64_t PartialBytes(const StepLimits& limits, int64_t max_columns) {
  constexpr int64_t kMostSplitRows = 16;
  constexpr int64_t kMost = int64_t{16} << 20;
  const int64_t spans = MostSpans(limits);
  if (spans == 1) return 0;
  const int64_t rows = std::min<int64_t>(limits.max_tokens, kMostSplitRows);
  // A head has at least 16 numbers in any model known, and two more floats.
  return std::min(rows * spans * max_columns * 9 / 8 * int64_t{sizeof(float)}, kMost);
}

// How many biases and counts of tokens sampling has room for: many rows' histories; a row alone
// always fits.
constexpr int64_t MostTokenFacts(int vocab_size) {
  return std::max(int64_t{1} << 16, int64_t{vocab_size} + kMaxTokenBiases);
}
constexpr int64_t SamplingBytes(int max_sequences, int vocab_size) {
  constexpr auto kRow = static_cast<int64_t>(sizeof(SampleControls) + sizeof(SampledRow));
  return max_sequences * kRow + MostTokenFacts(vocab_size) * int64_t{sizeof(TokenFact)};
}

}  // namespace sauva::cuda
