#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/numerics.h"

namespace sauva {

// Queries of one tile of attention at most, but for a single token's: enough that a span read
// from memory serves many, few enough that their sums stay in L2.
inline constexpr int64_t kTileQueries = 256;
// Tiles there should be for each thread, so that none waits long for the last.
inline constexpr int64_t kTilesPerThread = 4;
// Floats of sums of spans that several threads make for the same queries.
inline constexpr int64_t kMostSpanFloats = int64_t{4} << 20;

// What attention over heads of `head_dim` keeps, for steps of these limits.
struct AttentionScratchSize {
  int64_t floats = 0;       // per thread, whole cache lines
  int64_t span_floats = 0;  // of all threads
};

inline AttentionScratchSize AttentionScratchOf(const StepLimits& limits, int64_t max_columns,
                                               int head_dim, int threads) {
  if (head_dim == 0) return {};
  const int64_t heads = std::max<int64_t>(1, max_columns / head_dim);
  const int64_t positions = int64_t{limits.max_blocks_per_sequence} * kAttentionBlock;
  const int64_t spans = (positions + kAttentionSpan - 1) / kAttentionSpan;
  return {.floats = PaddedToLanes(AttentionScratchFloats(std::max(kTileQueries, heads), head_dim)),
          .span_floats =
              std::min(kTilesPerThread * threads * spans * AttentionSumFloats(heads, head_dim),
                       kMostSpanFloats)};
}

}  // namespace sauva
