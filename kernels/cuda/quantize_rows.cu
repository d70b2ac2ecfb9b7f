#include "kernels/cuda/int8_rounding.h"
#include "kernels/cuda/quantized_rows.h"
#include "kernels/cuda/weight_layout.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

// Code column `column` of a row; 0 beyond the end.
__device__ __forceinline__ float ValueAt(const QuantizeLaunch& args, int64_t token,
                                         int64_t column) {
  if (column >= args.x.columns) return 0;
  const int64_t from = args.column_order != nullptr ? args.column_order[column] : column;
  return args.x.data[token * args.x.stride + from];
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
  uint32_t magnitude = 0;
  for (int64_t group = first; group < end; ++group) {
    const float value = ValueAt(args, token, group * kInt8Unit + Lane());
    magnitude = LargerBits(magnitude, MagnitudeBits(value));
  }
  CodeScale by = ScaleFor(WarpMax(magnitude));
  // A static scale is that of all groups but those with a number that is not finite.
  if (args.rounding == Rounding::kStatic && by.scale == by.scale) {
    by = {args.static_scale, 1 / args.static_scale};
  }
  for (int64_t group = first; group < end; ++group) {
    const float value = ValueAt(args, token, group * kInt8Unit + Lane());
    Store(args, token, group, RoundCode(value, by), by.scale);
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
    bits = LargerBits(bits, outlier ? 0u : MagnitudeBits(value));
  }
  if (Lane() == 0) args.out.num_outliers[token] = count;
  const CodeScale by = ScaleFor(WarpMax(bits));
  for (int64_t group = 0; group < groups; ++group) {
    const float value = ValueAt(args, token, group * kInt8Unit + Lane());
    Store(args, token, group, is_outlier(value) ? 0 : RoundCode(value, by), by.scale);
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
