#include "kernels/cuda/quantized_rows.h"
#include "kernels/cuda/weight_layout.h"
#include "kernels/numerics.h"
#include "simt_target.h"

namespace sauva::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr uint32_t kNanBits = 0x7fc00000u;

__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

__device__ __forceinline__ uint32_t MagnitudeBits(float x) { return BitsOf(x) & 0x7fffffffu; }

__device__ __forceinline__ uint32_t WarpMax(uint32_t bits) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const uint32_t other = ShuffleXor(bits, mask);
    bits = other > bits ? other : bits;
  }
  return bits;
}

// Code column `column` of a row; 0 beyond the end.
__device__ __forceinline__ float ValueAt(const QuantizeLaunch& args, int64_t token,
                                         int64_t column) {
  if (column >= args.x.columns) return 0;
  const int64_t from = args.column_order != nullptr ? args.column_order[column] : column;
  return args.x.data[token * args.x.stride + from];
}

__device__ __forceinline__ int Round(float value, float inverse) {
  const float scaled = value * inverse;
  const float low = scaled < kInt8Max ? scaled : kInt8Max;
  const float bounded = low > -kInt8Max ? low : -kInt8Max;
  return static_cast<int>((bounded + kRoundMagic) - kRoundMagic);
}

// Writes one group: each lane of the warp has one of its codes.
__device__ __forceinline__ void Store(const QuantizeLaunch& args, int64_t token, int64_t group,
                                      int code, float scale) {
  const int64_t tile = token / kTileTokens * QuantizedGroups(args.x.columns) + group;
  const int row = static_cast<int>(token % kTileTokens);
  const TilePlace place = ActivationPlace(row, Lane());
  reinterpret_cast<int8_t*>(
      args.out.codes)[tile * 256 + place.lane * 8 + place.part * 4 + place.byte] =
      static_cast<int8_t>(code);
  int sum = code;
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
  if (Lane() == 0) args.out.facts[tile * kTileTokens + row] = {scale, sum};
}

// A warp quantizes the groups that share a scale.
__global__ void QuantizeGroups(QuantizeLaunch args) {
  const int64_t warp = int64_t{blockIdx.y} * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = warp * args.activation_groups;
  const int64_t groups = QuantizedGroups(args.x.columns);
  if (first >= groups) return;  // the whole warp
  const int64_t past = first + args.activation_groups;
  const int64_t end = past < groups ? past : groups;
  const int64_t token = blockIdx.x;
  // Magnitudes compared as integers order like the numbers, infinity and NaN on top.
  uint32_t magnitude = 0;
  for (int64_t group = first; group < end; ++group) {
    const uint32_t bits = MagnitudeBits(ValueAt(args, token, group * kInt8Unit + Lane()));
    magnitude = bits > magnitude ? bits : magnitude;
  }
  const uint32_t bits = WarpMax(magnitude);
  const float largest = FloatOf(bits);
  float scale = 0;
  float inverse = 0;  // the codes stay 0
  if (bits >= kInfinityBits) {
    scale = FloatOf(kNanBits);
  } else if (args.rounding == Rounding::kStatic) {
    scale = args.static_scale;
    inverse = 1 / args.static_scale;
  } else if (largest >= kInt8SmallestMagnitude) {
    scale = largest / kInt8Max;
    inverse = kInt8Max / largest;
  }
  for (int64_t group = first; group < end; ++group) {
    const float value = ValueAt(args, token, group * kInt8Unit + Lane());
    Store(args, token, group, inverse != 0 ? Round(value, inverse) : 0, scale);
  }
}

// A warp quantizes a row with one scale for all that is no outlier, and lists the outliers.
__global__ void QuantizeBesideOutliers(QuantizeLaunch args) {
  const int64_t token = blockIdx.x;
  const int64_t groups = QuantizedGroups(args.x.columns);
  int32_t* outliers = args.out.outliers + token * args.x.columns;
  const auto is_outlier = [&](float value) {
    return !(FloatOf(MagnitudeBits(value)) < args.outlier_threshold);  // NaN is one
  };
  uint32_t bits = 0;
  int count = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t column = group * kInt8Unit + Lane();
    const float value = ValueAt(args, token, column);
    const bool outlier = column < args.x.columns && is_outlier(value);
    const uint32_t others = Ballot(outlier);
    const uint32_t before = others & ((1u << Lane()) - 1u);
    if (outlier) outliers[count + CountBits(before)] = static_cast<int32_t>(column);
    count += CountBits(others);
    const uint32_t magnitude = outlier ? 0u : MagnitudeBits(value);
    bits = magnitude > bits ? magnitude : bits;
  }
  if (Lane() == 0) args.out.num_outliers[token] = count;
  const float largest = FloatOf(WarpMax(bits));
  const bool any = largest >= kInt8SmallestMagnitude;
  const float scale = any ? largest / kInt8Max : 0.0f;
  const float inverse = any ? kInt8Max / largest : 0.0f;
  for (int64_t group = 0; group < groups; ++group) {
    const float value = ValueAt(args, token, group * kInt8Unit + Lane());
    const int code = any && !is_outlier(value) ? Round(value, inverse) : 0;
    Store(args, token, group, code, scale);
  }
}

}  // namespace

void LaunchQuantize(const QuantizeLaunch& args, void* stream) {
  if (args.x.rows == 0) return;
  const auto rows = static_cast<unsigned>(args.x.rows);
  if (args.rounding == Rounding::kLlmInt8) {
    Launch(QuantizeBesideOutliers, {.grid = {rows, 1, 1}, .threads = kWarp, .stream = stream},
           args);
    return;
  }
  const int64_t groups = int64_t{kWarps} * args.activation_groups;  // of a block
  const auto blocks =
      static_cast<unsigned>((QuantizedGroups(args.x.columns) + groups - 1) / groups);
  Launch(QuantizeGroups, {.grid = {rows, blocks, 1}, .threads = kThreads, .stream = stream}, args);
}

}  // namespace sauva::cuda
