#pragma once

#include "kernels/cuda/magnitude.h"
#include "kernels/numerics.h"

// Numbers to int8 codes with a common scale, as the numerics contract has it.
namespace sauva::cuda {

// A scale and what turns numbers into codes of it; inverse 0: all codes are 0.
struct CodeScale {
  float scale;
  float inverse;
};

// Of numbers whose largest MagnitudeBits are these.
__device__ __forceinline__ CodeScale ScaleFor(uint32_t largest_bits) {
  constexpr uint32_t kNanBits = 0x7fc00000u;
  if (largest_bits >= kInfinityBits) return {FloatOf(kNanBits), 0.0f};
  const float largest = FloatOf(largest_bits);
  if (largest < kInt8SmallestMagnitude) return {0.0f, 0.0f};
  return {largest / kInt8Max, kInt8Max / largest};
}

__device__ __forceinline__ int RoundCode(float value, CodeScale by) {
  if (by.inverse == 0) return 0;  // whatever the value is
  const float scaled = value * by.inverse;
  const float low = scaled < kInt8Max ? scaled : kInt8Max;
  const float bounded = low > -kInt8Max ? low : -kInt8Max;
  return static_cast<int>((bounded + kRoundMagic) - kRoundMagic);
}

}  // namespace sauva::cuda
