#pragma once

#include "simt_target.h"

// The largest magnitude of many numbers, for what shares a scale.
namespace sauva::cuda {

constexpr int kWarp = 32;
constexpr uint32_t kInfinityBits = 0x7f800000u;

// Magnitudes compared as integers order like the numbers, infinity and NaN on top.
__device__ __forceinline__ uint32_t MagnitudeBits(float x) { return BitsOf(x) & 0x7fffffffu; }

__device__ __forceinline__ uint32_t LargerBits(uint32_t a, uint32_t b) { return a > b ? a : b; }

// The largest of a warp's; every lane takes part and has it.
__device__ __forceinline__ uint32_t WarpMax(uint32_t bits) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) bits = LargerBits(bits, ShuffleXor(bits, mask));
  return bits;
}

}  // namespace sauva::cuda
