#pragma once

#include "kernels/cuda/half_matmul.h"
#include "simt_target.h"

// What the kernels of half_matmul.cu are made of. Both operands lie along K in the stored order
// (weight_layout.h), which is as good as any: of 32 elements of a row the lane l takes those
// from 8 (l % 4) on, for the activations as for the weight, and calls them the k of two matrix
// instructions. So a lane's part of a row is one vector, in memory and in shared memory.
namespace sauva::cuda {

constexpr int kUnitTokens = 16;  // of a matrix instruction
constexpr int kUnitRows = 8;
constexpr int kStepColumns = 32;
constexpr int kStepVectors = 4;  // of a row, a step

constexpr int StepsOf(int64_t columns) {
  return static_cast<int>(FloatChunks(columns) * kFloatChunk / kStepColumns);
}

__device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int LaneRow() { return Thread() % 32 / 4; }
__device__ __forceinline__ int LaneFour() { return Thread() % 4; }
__device__ __forceinline__ int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

__device__ __forceinline__ const uint4* RowOf(const void* elements, int64_t row, int steps) {
  return static_cast<const uint4*>(elements) + row * steps * kStepVectors;
}

struct F16Unit {
  static constexpr bool kWithoutAsyncCopies = true;  // also where a GPU has none
  static __device__ __forceinline__ void Multiply(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                  float (&sum)[4]) {
    MultiplyF16(a, b, sum);
  }
};
struct BF16Unit {
  static constexpr bool kWithoutAsyncCopies = false;
  static __device__ __forceinline__ void Multiply(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                  float (&sum)[4]) {
    MultiplyBF16(a, b, sum);
  }
};

// The first and the second half of a step: 16 tokens, of which a lane has a part of two, by 8
// rows, of which it has a part of one.
template <class Unit>
__device__ __forceinline__ void MultiplyFirst(const uint4& upper, const uint4& lower,
                                              const uint4& row, float (&sum)[4]) {
  const uint32_t a[4] = {upper.x, lower.x, upper.y, lower.y};
  const uint32_t b[2] = {row.x, row.y};
  Unit::Multiply(a, b, sum);
}
template <class Unit>
__device__ __forceinline__ void MultiplySecond(const uint4& upper, const uint4& lower,
                                               const uint4& row, float (&sum)[4]) {
  const uint32_t a[4] = {upper.z, lower.z, upper.w, lower.w};
  const uint32_t b[2] = {row.z, row.w};
  Unit::Multiply(a, b, sum);
}

// What a block of threads works on: its warps side by side along tokens and along rows, each
// with so many tiles of the matrix instruction. kBlocks blocks share a multiprocessor.
template <int kTokenWarps_, int kRowWarps_, int kTokenTiles_, int kRowTiles_, int kBlocks_>
struct Tile {
  static constexpr int kTokenWarps = kTokenWarps_;
  static constexpr int kTokenTiles = kTokenTiles_;
  static constexpr int kRowTiles = kRowTiles_;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kThreads = 32 * kTokenWarps * kRowWarps_;
  static constexpr int kTokens = kTokenWarps * kTokenTiles * kUnitTokens;
  static constexpr int kRows = kRowWarps_ * kRowTiles * kUnitRows;
  // A stage of shared memory: a step of the tokens, then of the rows.
  static constexpr int kStageVectors = (kTokens + kRows) * kStepVectors;
  static constexpr int kThreadVectors = kStageVectors / kThreads;
  static_assert(kStageVectors % kThreads == 0);

  // Where the warp's tokens and rows begin in the tile.
  static __device__ __forceinline__ int WarpToken() {
    return Thread() / 32 % kTokenWarps * kTokenTiles * kUnitTokens;
  }
  static __device__ __forceinline__ int WarpRow() {
    return Thread() / 32 / kTokenWarps * kRowTiles * kUnitRows;
  }
};

// The vectors of a stage that a thread brings: where they come from at step 0. Beyond the
// matrices they are those of the last token or row.
template <class T>
struct Sources {
  const uint4* from[T::kThreadVectors];
  int steps;

  __device__ __forceinline__ Sources(const HalfMatMulLaunch& args, int64_t token0, int64_t row0)
      : steps(StepsOf(args.weight.columns)) {
#pragma unroll
    for (int i = 0; i < T::kThreadVectors; ++i) {
      const int vector = Thread() + i * T::kThreads;
      const int row = vector / kStepVectors;
      const bool is_token = row < T::kTokens;
      const int64_t last = is_token ? args.tokens - 1 : args.weight.rows - 1;
      const int64_t index = Least(is_token ? token0 + row : row0 + row - T::kTokens, last);
      from[i] = RowOf(is_token ? args.x.elements : args.weight.elements, index, steps) +
                vector % kStepVectors;
    }
  }
};

// Brings steps to shared memory asynchronously, kStages - 1 ahead of their use.
template <class T, int kStages_>
class AsyncCopies {
 public:
  static constexpr int kStages = kStages_;
  __device__ __forceinline__ AsyncCopies(const Sources<T>& sources, uint4* stages)
      : sources_(sources), stages_(stages) {}

  __device__ __forceinline__ void Begin(int step) {
    if (step < sources_.steps) {
      uint4* to = stages_ + step % kStages * T::kStageVectors + Thread();
#pragma unroll
      for (int i = 0; i < T::kThreadVectors; ++i) {
        CopyAsync(to + i * T::kThreads, sources_.from[i] + step * kStepVectors);
      }
    }
    CommitCopies();  // an empty group too: WaitFor counts groups
  }
  __device__ __forceinline__ void End(int /*step*/) {}
  // What this thread brings of the step is there.
  __device__ __forceinline__ void WaitFor(int /*step*/) { WaitForCopies<kStages - 2>(); }

 private:
  const Sources<T> sources_;
  uint4* const stages_;
};

// Brings the next step through registers, while the one before it is multiplied.
template <class T>
class HeldCopies {
 public:
  static constexpr int kStages = 2;
  __device__ __forceinline__ HeldCopies(const Sources<T>& sources, uint4* stages)
      : sources_(sources), stages_(stages) {}

  __device__ __forceinline__ void Begin(int step) {
    if (step >= sources_.steps) return;
#pragma unroll
    for (int i = 0; i < T::kThreadVectors; ++i) {
      held_[i] = sources_.from[i][step * kStepVectors];
    }
  }
  __device__ __forceinline__ void End(int step) {
    if (step >= sources_.steps) return;
    uint4* to = stages_ + step % kStages * T::kStageVectors + Thread();
#pragma unroll
    for (int i = 0; i < T::kThreadVectors; ++i) to[i * T::kThreads] = held_[i];
  }
  __device__ __forceinline__ void WaitFor(int /*step*/) {}

 private:
  const Sources<T> sources_;
  uint4* const stages_;
  uint4 held_[T::kThreadVectors];
};

// Adds a stage's products to the warp's sums. A quarter of a warp reads two rows that lie
// together, 128 bytes: no two lanes meet in a bank.
template <class Unit, class T>
__device__ __forceinline__ void MultiplyStage(const uint4* stage,
                                              float (&sum)[T::kTokenTiles][T::kRowTiles][4]) {
  const uint4* lane = stage + LaneRow() * kStepVectors + LaneFour();
  const uint4* tokens = lane + T::WarpToken() * kStepVectors;
  const uint4* rows = lane + (T::kTokens + T::WarpRow()) * kStepVectors;
  uint4 w[T::kRowTiles];
#pragma unroll
  for (int r = 0; r < T::kRowTiles; ++r) w[r] = rows[r * kUnitRows * kStepVectors];
#pragma unroll
  for (int t = 0; t < T::kTokenTiles; ++t) {
    const uint4 upper = tokens[t * kUnitTokens * kStepVectors];
    const uint4 lower = tokens[(t * kUnitTokens + 8) * kStepVectors];
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) MultiplyFirst<Unit>(upper, lower, w[r], sum[t][r]);
#pragma unroll
    for (int r = 0; r < T::kRowTiles; ++r) MultiplySecond<Unit>(upper, lower, w[r], sum[t][r]);
  }
}

}  // namespace sauva::cuda
