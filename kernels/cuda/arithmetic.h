#pragma once

#include "kernels/cuda/rows.h"
#include "kernels/numerics.h"
#include "simt_target.h"

// The sums and functions of the numerics contract for one thread, and for 16 lanes of a
// warp. Every product that may not be contracted stands alone: the CUDA compiler is told
// -fmad=false.
namespace sauva::cuda {

// kernels/math.cc has these for the host.
__device__ __forceinline__ float PowerOfTwo(uint32_t exponent) {
  return FloatOf((exponent + 127u) << 23);
}

__device__ __forceinline__ float Exp(float x) {
  x = kExpLowest > x ? kExpLowest : x;  // in this order NaN stays NaN
  x = kExpHighest < x ? kExpHighest : x;
  const float shifted = Fma(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  float r = Fma(n, -kLn2High, x);
  r = Fma(n, -kLn2Low, r);
  constexpr float t0 = kExpTerms[0], t1 = kExpTerms[1], t2 = kExpTerms[2], t3 = kExpTerms[3],
                  t4 = kExpTerms[4];
  const float q = Fma(Fma(Fma(Fma(t0, r, t1), r, t2), r, t3), r, t4);
  const float p = Fma(q, r * r, r) + 1.0f;
  const auto whole = static_cast<int32_t>(BitsOf(shifted) - BitsOf(kRoundMagic));
  const int32_t half = whole >> 1;
  return p * PowerOfTwo(static_cast<uint32_t>(half)) *
         PowerOfTwo(static_cast<uint32_t>(whole) - static_cast<uint32_t>(half));
}

__device__ __forceinline__ float Silu(float x) { return x / (1.0f + Exp(-x)); }

__device__ __forceinline__ float Gelu(float x) {
  const float magnitude = FloatOf(BitsOf(x) & 0x7fffffffu);
  const float t = 1.0f / Fma(kNormalTailStep, magnitude, 1.0f);
  constexpr float t0 = kNormalTailTerms[0], t1 = kNormalTailTerms[1], t2 = kNormalTailTerms[2],
                  t3 = kNormalTailTerms[3], t4 = kNormalTailTerms[4], t5 = kNormalTailTerms[5],
                  t6 = kNormalTailTerms[6], t7 = kNormalTailTerms[7], t8 = kNormalTailTerms[8];
  float p = Fma(Fma(Fma(Fma(t0, t, t1), t, t2), t, t3), t, t4);
  p = Fma(Fma(Fma(Fma(p, t, t5), t, t6), t, t7), t, t8);
  const float tail = p * t * Exp(x * x * -0.5f);
  return x > 0 ? Fma(-x, tail, x) : x * tail;
}

__device__ __forceinline__ float GeluTanh(float x) {
  const float inner = x * Fma(kGeluTanhCubic * x, x, 1.0f);
  return x / (1.0f + Exp(inner * -kGeluTanhTwice));
}

__device__ __forceinline__ float Activated(Gate kind, float x) {
  switch (kind) {
    case Gate::kSilu:
      return Silu(x);
    case Gate::kGelu:
      return Gelu(x);
    case Gate::kGeluTanh:
      return GeluTanh(x);
    default:
      return 0.0f > x ? 0.0f : x;
  }
}

__device__ __forceinline__ float Larger(float a, float b) { return a > b ? a : b; }

// The contract's tree over 16 lanes: 8+8, 4+4, 2+2, 1+1. Holds in the first lane of each
// half of the warp; every lane takes part.
__device__ __forceinline__ float TreeSum(float x) {
  for (int width = kLanes / 2; width > 0; width /= 2) x = x + ShuffleDown(x, width);
  return x;
}
__device__ __forceinline__ float TreeMax(float x) {
  for (int width = kLanes / 2; width > 0; width /= 2) x = Larger(x, ShuffleDown(x, width));
  return x;
}

}  // namespace sauva::cuda
