#include "base/ceil_divide.h"
#include "kernels/cuda/code_formats.h"
#include "kernels/cuda/code_matmul.h"
#include "kernels/cuda/code_scales.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// What a warp works on: kRowTiles tiles of rows from `row`, kTokenTiles of tokens from `token`.
struct WarpPlace {
  int lane = 0;
  int64_t row_tile = 0;
  int64_t token_tile = 0;
};

// inner += dots * scale for the lane's four outputs of a tile; dots become kStart.
template <class Codes>
__device__ __forceinline__ void EndActivationGroup(float2 scales, int32_t (&dots)[4],
                                                   float (&inner)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    inner[i] = Fma(Codes::ToFloat(dots[i]), i % 2 == 0 ? scales.x : scales.y, inner[i]);
    dots[i] = Codes::kStart;
  }
}

// sum += inner * scale for the lane's four outputs of a tile; inner becomes -0.
template <class Codes>
__device__ __forceinline__ void EndScaleGroup(const CodeMatrix& weight, int64_t at, int lane,
                                              float (&inner)[4], float (&sum)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float scale = FactorOf<Codes>(weight, at, lane / 4 + i / 2 * 8);
    sum[i] = Fma(inner[i], scale, sum[i]);
    inner[i] = -0.0f;
  }
}

template <int kRowTiles, int kTokenTiles>
__device__ __forceinline__ void WriteOut(const CodeMatMulLaunch& args, const WarpPlace& place,
                                         const float (&sum)[kRowTiles][kTokenTiles][4]) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t row = (place.row_tile + r) * kTileRows + place.lane / 4 + i / 2 * 8;
        const int64_t token = (place.token_tile + t) * kTileTokens + place.lane % 4 * 2 + i % 2;
        if (row >= args.weight.rows || token >= args.tokens) continue;
        args.out.data[token * args.out.stride + row] =
            args.bias != nullptr ? sum[r][t][i] + args.bias[row] : sum[r][t][i];
      }
    }
  }
}

// A warp goes over the columns group by group; kAhead groups of the weight are on their way
// at once. Tiles beyond the matrix are computed of its last ones and not written. Blocks that
// follow one another share rows of the weight, so that memory is read once.
template <class Codes, int kRowTiles, int kTokenTiles, int kAhead, WeightReads kReads>
__global__ void __launch_bounds__(kThreads, 2) CodeMatMul(CodeMatMulLaunch args) {
  const CodeMatrix& weight = args.weight;
  const int64_t token_blocks = CeilDivide(args.tokens, kTokenTiles * kTileTokens);
  const WarpPlace place = {
      .lane = static_cast<int>(threadIdx.x) % 32,
      .row_tile =
          (blockIdx.x / token_blocks * kWarps + static_cast<int>(threadIdx.x) / 32) * kRowTiles,
      .token_tile = blockIdx.x % token_blocks * kTokenTiles};
  if (place.row_tile >= weight.row_tiles()) return;  // the whole warp
  const int64_t groups = weight.groups();
  const int64_t weight_groups = weight.weight_groups();

  float sum[kRowTiles][kTokenTiles][4] = {};
  float inner[kRowTiles][kTokenTiles][4];
  int32_t dots[kRowTiles][kTokenTiles][4];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        inner[r][t][i] = -0.0f;
        dots[r][t][i] = Codes::kStart;
      }
    }
  }
  int64_t scale_group = 0;
  int in_scale_group = 0;
  int in_activation_group = 0;
  for (int64_t first = 0; first < groups; first += kAhead) {
    typename Codes::Raw raw[kAhead][kRowTiles];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        raw[ahead][r] =
            Codes::template Load<kReads>(weight, Least(place.row_tile + r, weight.row_tiles() - 1),
                                         Least(first + ahead, groups - 1), place.lane);
      }
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int64_t group = first + ahead;
      if (group >= groups) break;  // the whole warp
      const bool ends = ++in_scale_group == weight.scale_groups || group == groups - 1;
      const bool step_ends = ++in_activation_group == weight.activation_groups || ends;
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const int64_t row_tile = Least(place.row_tile + r, weight.row_tiles() - 1);
        const int64_t at = row_tile * weight_groups + scale_group;
        DotOperands x;
        ZerosOf(weight, at, place.lane, x);
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
          const int64_t tile = Least(place.token_tile + t, QuantizedTiles(args.tokens) - 1);
          const float2 scales = LoadActivations(args.x, tile * groups + group, place.lane, x);
          Codes::Dots(raw[ahead][r], group, x, dots[r][t]);
          if (step_ends) EndActivationGroup<Codes>(scales, dots[r][t], inner[r][t]);
          if (ends) EndScaleGroup<Codes>(weight, at, place.lane, inner[r][t], sum[r][t]);
        }
      }
      if (step_ends) in_activation_group = 0;
      if (!ends) continue;
      ++scale_group;
      in_scale_group = 0;
    }
  }
  WriteOut<kRowTiles, kTokenTiles>(args, place, sum);
}

template <class Codes, int kRowTiles, int kTokenTiles, int kAhead,
          WeightReads kReads = WeightReads::kByOneBlock>
void LaunchTiles(const CodeMatMulLaunch& args, void* stream) {
  constexpr int kBlockRows = kWarps * kRowTiles * kTileRows;
  const int64_t blocks =
      CeilDivide(args.weight.rows, kBlockRows) * CeilDivide(args.tokens, kTokenTiles * kTileTokens);
  Launch(CodeMatMul<Codes, kRowTiles, kTokenTiles, kAhead, kReads>,
         {.grid = {static_cast<unsigned>(blocks), 1, 1}, .threads = kThreads, .stream = stream},
         args);
}

// The tile only decides the speed: each output has one order of sums.
template <class Codes>
void LaunchCodes(const CodeMatMulLaunch& args, void* stream) {
  if (args.tokens <= kTileTokens) return LaunchTiles<Codes, 1, 1, 8>(args, stream);
  if (args.tokens <= 4 * kTileTokens) return LaunchTiles<Codes, 1, 4, 4>(args, stream);
  LaunchTiles<Codes, 2, 4, 2, WeightReads::kBySeveral>(args, stream);
}

}  // namespace

void LaunchCodeMatMul(const CodeMatMulLaunch& args, void* stream) {
  if (args.tokens == 0) return;
  switch (args.weight.format) {
    case CodeFormat::kInt8:
      return LaunchCodes<Int8Codes>(args, stream);
    case CodeFormat::kInt4:
      return LaunchCodes<Int4Codes>(args, stream);
    case CodeFormat::kInt3:
      return LaunchCodes<Int3Codes>(args, stream);
    case CodeFormat::kNf4:
      return LaunchCodes<Nf4Codes>(args, stream);
  }
}

}  // namespace sauva::cuda
