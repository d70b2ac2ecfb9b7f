#include "kernels/cpu/cpu_scratch.h"

#include <algorithm>

#include "kernels/backend_scratch.h"

namespace sauva {

int64_t BackendScratch::BytesOnCpu(int threads) const {
  constexpr int64_t kNumber = 4;
  const int64_t rows = std::max(limits.max_tokens, limits.max_sequences);
  const int64_t units = (rows + kMostTileTokens) * ((max_columns + kInt8Unit - 1) / kInt8Unit);
  const int64_t activations = units * (kInt8Unit + 3 * kNumber);
  const AttentionScratchSize attention =
      AttentionScratchOf(limits, max_columns, limits.max_head_dim, threads);
  const int64_t sampling = 4 * kNumber * vocab_size;
  return activations + attention.span_floats * kNumber +
         threads * (PackedScratchBytes(rows) + attention.floats * kNumber + sampling);
}

}  // namespace sauva
