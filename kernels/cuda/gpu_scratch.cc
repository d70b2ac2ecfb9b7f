#include "kernels/backend_scratch.h"
#include "kernels/cuda/half_matmul.h"
#include "kernels/cuda/quantized_rows.h"
#include "kernels/cuda/scratch_bytes.h"

namespace sauva {

int64_t BackendScratch::MostBytesOnGpu() const {
  constexpr int64_t kNumber = 4;
  const int64_t tokens = limits.max_tokens;
  const int64_t codes =
      cuda::QuantizedCodeBytes(tokens, max_columns) + cuda::GroupFactsBytes(tokens, max_columns);
  const int64_t outliers = tokens * (max_columns + 1) * kNumber;
  const int64_t halves = cuda::HalfElementBytes(tokens, max_columns) + tokens * kNumber;
  return cuda::StepTableBytes(limits) + codes + outliers + halves +
         cuda::PartialBytes(limits, max_columns) +
         cuda::SamplingBytes(limits.max_sequences, vocab_size) +
         cuda::StepGraphs::BytesFor(cuda::GraphLimits(limits));
}

}  // namespace sauva
