#pragma once

#include "kernels/cuda/code_formats.h"

// Scales and zeros beside the codes of a matrix. `at` is the index of a row tile's weight
// group, `row` is within the tile.
namespace sauva::cuda {

__device__ __forceinline__ float ScaleOf(const CodeMatrix& weight, int64_t at, int row) {
  const int64_t index = at * kTileRows + row;
  return weight.half_scales ? WidenHalf(static_cast<const uint16_t*>(weight.scales)[index])
                            : static_cast<const float*>(weight.scales)[index];
}

// What the sum over a weight group is multiplied by.
template <class Codes>
__device__ __forceinline__ float FactorOf(const CodeMatrix& weight, int64_t at, int row) {
  return ScaleOf(weight, at, row);
}
template <>
__device__ __forceinline__ float FactorOf<Nf4Codes>(const CodeMatrix& weight, int64_t at, int row) {
  return ScaleOf(weight, at, row) * kNf4FixedStep;
}

__device__ __forceinline__ int ZeroOf(const CodeMatrix& weight, int64_t at, int row) {
  return weight.zeros == nullptr ? 0 : weight.zeros[at * kTileRows + row];
}

// The zeros of the two rows a lane has of a tile.
__device__ __forceinline__ void ZerosOf(const CodeMatrix& weight, int64_t at, int lane,
                                        DotOperands& x) {
  x.zeros[0] = ZeroOf(weight, at, lane / 4);
  x.zeros[1] = ZeroOf(weight, at, lane / 4 + 8);
}

// The lane's activations of tile-and-group `index`; returns the scales of its two tokens.
__device__ __forceinline__ float2 LoadActivations(const QuantizedRows& rows, int64_t index,
                                                  int lane, DotOperands& x) {
  const uint2 codes = reinterpret_cast<const uint2*>(rows.codes)[index * 32 + lane];
  const uint4 facts = reinterpret_cast<const uint4*>(rows.facts)[index * 4 + lane % 4];
  x.codes[0] = codes.x;
  x.codes[1] = codes.y;
  x.sums[0] = static_cast<int>(facts.y);
  x.sums[1] = static_cast<int>(facts.w);
  return {FloatOf(facts.x), FloatOf(facts.z)};
}

}  // namespace sauva::cuda
