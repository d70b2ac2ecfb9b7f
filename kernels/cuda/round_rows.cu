#include "kernels/cuda/element_types.h"
#include "kernels/cuda/half_matmul.h"
#include "kernels/cuda/magnitude.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

__device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }

// The largest magnitude of a row; every thread of the block has it.
__device__ uint32_t LargestOfRow(const float* x, int columns) {
  auto* of_warps = reinterpret_cast<uint32_t*>(DynamicShared());
  uint32_t largest = 0;
  for (int i = Thread(); i < columns; i += kThreads) {
    largest = LargerBits(largest, MagnitudeBits(x[i]));
  }
  largest = WarpMax(largest);
  if (Thread() % kWarp == 0) of_warps[Thread() / kWarp] = largest;
  SyncThreads();
  largest = 0;
  for (int warp = 0; warp < kWarps; ++warp) largest = LargerBits(largest, of_warps[warp]);
  return largest;
}

// The exponent of the power of two that brings magnitudes of these bits to [2^14, 2^15), as it
// stands in a f32; that of 1 where there is nothing to scale.
__device__ __forceinline__ uint32_t ScalingExponent(uint32_t largest_bits) {
  constexpr uint32_t kOne = 127;
  constexpr uint32_t kMost = kOne + 100;  // so that its inverse is no subnormal number
  if (largest_bits == 0 || largest_bits >= kInfinityBits) return kOne;
  const uint32_t exponent = 2 * kOne + 14 - (largest_bits >> 23);
  return exponent < kMost ? exponent : kMost;
}

// One block of threads per token.
template <class Stored, bool kScaled>
__global__ void RoundRows(RoundRowsLaunch args) {
  const int64_t token = blockIdx.x;
  const float* x = args.x.data + token * args.x.stride;
  float factor = 1;
  float inverse = 1;
  if constexpr (kScaled) {
    const uint32_t exponent = ScalingExponent(LargestOfRow(x, args.x.columns));
    factor = FloatOf(exponent << 23);
    inverse = FloatOf((254u - exponent) << 23);
  }
  if (Thread() == 0) args.out.scales[token] = inverse;
  const int64_t chunks = FloatChunks(args.x.columns);
  auto* out = reinterpret_cast<typename Stored::Four*>(args.out.elements) + token * chunks * 16;
  for (int i = Thread(); i < static_cast<int>(chunks) * 16; i += kThreads) {
    const int first = i / 16 * kFloatChunk + i % 16;
    const auto at = [&](int step) {
      const int column = first + 16 * step;
      return Stored::Narrow(column < args.x.columns ? x[column] * factor : 0.0f);
    };
    out[i] = {at(0), at(1), at(2), at(3)};
  }
}

}  // namespace

void LaunchRoundRows(const RoundRowsLaunch& args, void* stream) {
  if (args.x.rows == 0) return;
  const LaunchShape shape = {.grid = {static_cast<unsigned>(args.x.rows), 1, 1},
                             .threads = kThreads,
                             .shared_bytes = kWarps * int{sizeof(uint32_t)},
                             .stream = stream};
  if (args.dtype == DType::kF16) return Launch(RoundRows<F16, true>, shape, args);
  Launch(RoundRows<BF16, false>, shape, args);
}

}  // namespace sauva::cuda
