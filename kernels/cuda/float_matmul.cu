#include "base/ceil_divide.h"
#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/element_types.h"
#include "kernels/cuda/float_matmul.h"
#include "kernels/cuda/weight_layout.h"
#include "kernels/cuda/weight_reads.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kHalfWarps = kThreads / kLanes;

__device__ __forceinline__ int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// Sixteen threads, one per virtual lane, compute kRows outputs of kTokens tokens; a block's
// half-warps are spread over kTokenGroups groups of tokens, those of one group over rows.
// What lies beyond the matrix is computed of its last row or token and not written. Blocks that
// follow one another share rows of the weight, so that memory is read once.
template <class Stored, int kRows, int kTokens, int kTokenGroups, WeightReads kReads>
__global__ void __launch_bounds__(kThreads) FloatMatMul(FloatMatMulLaunch args) {
  constexpr int kRowGroups = kHalfWarps / kTokenGroups;
  const int64_t token_blocks = CeilDivide(args.x.rows, kTokens * kTokenGroups);
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int half_warp = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t row0 =
      (blockIdx.x / token_blocks * kRowGroups + half_warp / kTokenGroups) * int64_t{kRows};
  const int token0 =
      static_cast<int>(blockIdx.x % token_blocks * kTokenGroups + half_warp % kTokenGroups) *
      kTokens;

  const int64_t chunks = FloatChunks(args.weight.columns);
  const auto* elements = static_cast<const typename Stored::Four*>(args.weight.elements);
  const typename Stored::Four* rows[kRows];
  const float* tokens[kTokens];
  for (int r = 0; r < kRows; ++r) {
    rows[r] = elements + Least(row0 + r, args.weight.rows - 1) * chunks * kLanes + lane;
  }
  for (int t = 0; t < kTokens; ++t) {
    tokens[t] = args.x.data + Least(token0 + t, args.x.rows - 1) * args.x.stride + lane;
  }

  float sum[kRows][kTokens] = {};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    typename Stored::Four w[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) w[r] = ReadWeight<kReads>(rows[r] + chunk * kLanes);
    float x[kFloatSteps][kTokens];
#pragma unroll
    for (int step = 0; step < kFloatSteps; ++step) {
      const int64_t column = chunk * kFloatChunk + step * kLanes;
      const bool inside = column + lane < args.weight.columns;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) x[step][t] = inside ? tokens[t][column] : 0.0f;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float steps[kFloatSteps] = {Stored::Widen(w[r].x), Stored::Widen(w[r].y),
                                        Stored::Widen(w[r].z), Stored::Widen(w[r].w)};
#pragma unroll
      for (int step = 0; step < kFloatSteps; ++step) {
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          sum[r][t] = Fma(steps[step], x[step][t], sum[r][t]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float total = TreeSum(sum[r][t]);
      if (lane != 0 || row0 + r >= args.weight.rows || token0 + t >= args.x.rows) continue;
      args.out.data[(token0 + t) * args.out.stride + row0 + r] =
          args.bias != nullptr ? total + args.bias[row0 + r] : total;
    }
  }
}

template <class Stored>
__global__ void FloatGather(FloatGatherLaunch args) {
  const int64_t row = args.token_ids[blockIdx.x];
  const int64_t chunks = FloatChunks(args.weight.columns);
  const auto* elements = static_cast<const typename Stored::One*>(args.weight.elements);
  float* out = args.out.data + int64_t{blockIdx.x} * args.out.stride;
  for (int i = static_cast<int>(threadIdx.x); i < args.out.columns;
       i += static_cast<int>(blockDim.x)) {
    out[i] = Stored::Widen(elements[FloatOffset(row, i, chunks)]) * args.scale;
  }
}

template <class Stored, int kRows, int kTokens, int kTokenGroups,
          WeightReads kReads = WeightReads::kByOneBlock>
void LaunchTiles(const FloatMatMulLaunch& args, void* stream) {
  constexpr int kBlockRows = kRows * kHalfWarps / kTokenGroups;
  const int64_t blocks =
      CeilDivide(args.weight.rows, kBlockRows) * CeilDivide(args.x.rows, kTokens * kTokenGroups);
  Launch(FloatMatMul<Stored, kRows, kTokens, kTokenGroups, kReads>,
         {.grid = {static_cast<unsigned>(blocks), 1, 1}, .threads = kThreads, .stream = stream},
         args);
}

// The tile only decides the speed: each output has one order of sums.
template <class Stored>
void LaunchStored(const FloatMatMulLaunch& args, void* stream) {
  if (args.x.rows == 1) return LaunchTiles<Stored, 4, 1, 1>(args, stream);
  if (args.x.rows <= 4) return LaunchTiles<Stored, 4, 4, 1>(args, stream);
  if (args.x.rows <= 8) return LaunchTiles<Stored, 4, 8, 1>(args, stream);
  LaunchTiles<Stored, 8, 8, 4, WeightReads::kBySeveral>(args, stream);
}

}  // namespace

void LaunchFloatMatMul(const FloatMatMulLaunch& args, void* stream) {
  if (args.x.rows == 0) return;
  if (args.weight.dtype == DType::kF32) return LaunchStored<F32>(args, stream);
  if (args.weight.dtype == DType::kF16) return LaunchStored<F16>(args, stream);
  LaunchStored<BF16>(args, stream);
}

void LaunchFloatGather(const FloatGatherLaunch& args, void* stream) {
  if (args.out.rows == 0) return;
  const LaunchShape shape = {
      .grid = {static_cast<unsigned>(args.out.rows), 1, 1}, .threads = kThreads, .stream = stream};
  if (args.weight.dtype == DType::kF32) return Launch(FloatGather<F32>, shape, args);
  if (args.weight.dtype == DType::kF16) return Launch(FloatGather<F16>, shape, args);
  Launch(FloatGather<BF16>, shape, args);
}

}  // namespace sauva::cuda
