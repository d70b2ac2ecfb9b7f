#include "kernels/cuda/half_matmul.h"
#include "kernels/cuda/half_tiles.h"

// Few tokens: a warp streams 8 rows of the weight from memory straight into the registers of
// the matrix instruction. Many tokens: blocks of threads share tiles of both operands, which
// come to shared memory some steps ahead.
namespace sauva::cuda {
namespace {

// Writes a warp's products from token0 and row0 on; what lies beyond the matrix is not written.
template <int kTokenTiles, int kRowTiles>
__device__ __forceinline__ void WriteOut(const HalfMatMulLaunch& args, int64_t token0, int64_t row0,
                                         const float (&sum)[kTokenTiles][kRowTiles][4]) {
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t token = token0 + t * kUnitTokens + half * 8 + LaneRow();
      if (token >= args.tokens) continue;
      const float scale = args.x.scales[token];
      float* out = args.out.data + token * args.out.stride;
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int64_t row = row0 + r * kUnitRows + LaneFour() * 2 + i;
          if (row >= args.weight.rows) continue;
          const float product = sum[t][r][2 * half + i] * scale;
          out[row] = args.bias != nullptr ? product + args.bias[row] : product;
        }
      }
    }
  }
}

constexpr int kStreamThreads = 128;
constexpr int kStreamRows = kStreamThreads / 32 * kUnitRows;

// A warp multiplies kUnitRows rows of the weight by up to kTokens tokens; kAhead steps of the
// weight are on their way at once.
template <class Unit, int kTokens, int kAhead>
__global__ void __launch_bounds__(kStreamThreads) StreamMatMul(HalfMatMulLaunch args) {
  constexpr int kTokenTiles = (kTokens + kUnitTokens - 1) / kUnitTokens;
  const int64_t row0 = int64_t{blockIdx.x} * kStreamRows + Thread() / 32 * kUnitRows;
  if (row0 >= args.weight.rows) return;  // the whole warp
  const int steps = StepsOf(args.weight.columns);
  const int64_t row = Least(row0 + LaneRow(), args.weight.rows - 1);
  const uint4* weight = RowOf(args.weight.elements, row, steps) + LaneFour();
  const uint4* x[kTokenTiles][2];
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t token = Least(t * kUnitTokens + half * 8 + LaneRow(), args.tokens - 1);
      x[t][half] = RowOf(args.x.elements, token, steps) + LaneFour();
    }
  }
  uint4 ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    ahead[i] = LoadOnce(weight + (i < steps ? i : 0) * kStepVectors);
  }
  float sum[kTokenTiles][1][4] = {};
  for (int first = 0; first < steps; first += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int step = first + i;
      if (step >= steps) break;  // the whole warp
      const uint4 w = ahead[i];
      if (step + kAhead < steps) ahead[i] = LoadOnce(weight + (step + kAhead) * kStepVectors);
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        const uint4 upper = x[t][0][step * kStepVectors];
        uint4 lower = {0, 0, 0, 0};  // there are none of more than 8 tokens
        if constexpr (kTokens > 8) lower = x[t][1][step * kStepVectors];
        MultiplyFirst<Unit>(upper, lower, w, sum[t][0]);
        MultiplySecond<Unit>(upper, lower, w, sum[t][0]);
      }
    }
  }
  WriteOut<kTokenTiles, 1>(args, 0, row0, sum);
}

// A block multiplies T::kTokens tokens by T::kRows rows, step by step.
template <class Unit, class T, class Copies>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks) TileMatMul(HalfMatMulLaunch args) {
  constexpr int kStages = Copies::kStages;
  const int64_t token0 = int64_t{blockIdx.x} * T::kTokens;
  const int64_t row0 = int64_t{blockIdx.y} * T::kRows;
  auto* const stages = reinterpret_cast<uint4*>(DynamicShared());
  Copies copies(Sources<T>(args, token0, row0), stages);
  for (int step = 0; step < kStages - 1; ++step) {
    copies.Begin(step);
    copies.End(step);
  }
  float sum[T::kTokenTiles][T::kRowTiles][4] = {};
  const int steps = StepsOf(args.weight.columns);
  for (int step = 0; step < steps; ++step) {
    copies.WaitFor(step);
    SyncThreads();  // it is there for all threads, and the stage of the step before is free
    copies.Begin(step + kStages - 1);
    MultiplyStage<Unit, T>(stages + step % kStages * T::kStageVectors, sum);
    copies.End(step + kStages - 1);
  }
  WriteOut<T::kTokenTiles, T::kRowTiles>(args, token0 + T::WarpToken(), row0 + T::WarpRow(), sum);
}

template <class Unit, int kTokens>
void LaunchStream(const HalfMatMulLaunch& args, void* stream) {
  constexpr int kAhead = 8;
  const auto blocks = static_cast<unsigned>((args.weight.rows + kStreamRows - 1) / kStreamRows);
  Launch(StreamMatMul<Unit, kTokens, kAhead>,
         {.grid = {blocks, 1, 1}, .threads = kStreamThreads, .stream = stream}, args);
}

template <class T>
int64_t BlocksOf(const HalfMatMulLaunch& args) {
  return int64_t{(args.tokens + T::kTokens - 1) / T::kTokens} *
         ((args.weight.rows + T::kRows - 1) / T::kRows);
}

// Blocks that follow one another share rows of the weight, so that memory is read once.
template <class Unit, class T, class Copies>
void LaunchTiles(const HalfMatMulLaunch& args, void* stream) {
  Launch(TileMatMul<Unit, T, Copies>,
         {.grid = {static_cast<unsigned>((args.tokens + T::kTokens - 1) / T::kTokens),
                   static_cast<unsigned>((args.weight.rows + T::kRows - 1) / T::kRows), 1},
          .threads = T::kThreads,
          .shared_bytes = Copies::kStages * T::kStageVectors * 16,
          .stream = stream},
         args);
}

using SmallTile = Tile<2, 2, 2, 4, 4>;      // 64 tokens x 64 rows
using LargeTile = Tile<2, 4, 4, 4, 2>;      // 128 x 128
using LargeHeldTile = Tile<2, 4, 4, 4, 1>;  // the same, with registers for what is held

// The tile only decides the speed.
template <class Unit>
void LaunchUnit(const HalfMatMulLaunch& args, void* stream) {
  constexpr int64_t kFewBlocks = 128;  // leave a large GPU without work
  if (args.tokens <= 8) return LaunchStream<Unit, 8>(args, stream);
  if (args.tokens <= 16) return LaunchStream<Unit, 16>(args, stream);
  if (args.tokens <= 32) return LaunchStream<Unit, 32>(args, stream);
  const bool small = args.tokens <= SmallTile::kTokens || BlocksOf<LargeTile>(args) < kFewBlocks;
  if constexpr (Unit::kWithoutAsyncCopies) {
    if (args.units == MatrixUnits::kF16) {
      if (small) return LaunchTiles<Unit, SmallTile, HeldCopies<SmallTile>>(args, stream);
      return LaunchTiles<Unit, LargeHeldTile, HeldCopies<LargeHeldTile>>(args, stream);
    }
  }
  if (small) return LaunchTiles<Unit, SmallTile, AsyncCopies<SmallTile, 4>>(args, stream);
  LaunchTiles<Unit, LargeTile, AsyncCopies<LargeTile, 3>>(args, stream);
}

}  // namespace

void LaunchHalfMatMul(const HalfMatMulLaunch& args, void* stream) {
  if (args.tokens == 0) return;
  if (args.weight.dtype == DType::kF16) return LaunchUnit<F16Unit>(args, stream);
  LaunchUnit<BF16Unit>(args, stream);
}

}  // namespace sauva::cuda
