#pragma once

#include "simt_target.h"

// Element types as stored in device memory: One is an element, Four are four of them in one
// load. Widen of int8 is a code without its scale.
namespace sauva::cuda {

struct F32 {
  using One = float;
  using Four = float4;
  static __device__ __forceinline__ float Widen(float x) { return x; }
  static __device__ __forceinline__ float Narrow(float x) { return x; }
};
struct F16 {
  using One = uint16_t;
  using Four = ushort4;
  static __device__ __forceinline__ float Widen(uint16_t x) { return WidenHalf(x); }
  static __device__ __forceinline__ uint16_t Narrow(float x) { return NarrowToHalf(x); }
};
struct BF16 {
  using One = uint16_t;
  using Four = ushort4;
  static __device__ __forceinline__ float Widen(uint16_t x) {
    return FloatOf(static_cast<uint32_t>(x) << 16);
  }
  // To nearest even; NaN stays NaN.
  static __device__ __forceinline__ uint16_t Narrow(float x) {
    const uint32_t bits = BitsOf(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
};

struct I8 {
  using One = int8_t;
  using Four = char4;
  static __device__ __forceinline__ float Widen(int8_t x) { return static_cast<float>(x); }
};

// Reads kCount (1 or 4) elements, widened; 4 lie aligned to their size.
template <class Stored, int kCount>
__device__ __forceinline__ void Load(const typename Stored::One* from, float (&values)[kCount]) {
  static_assert(kCount == 1 || kCount == 4);
  if constexpr (kCount == 1) {
    values[0] = Stored::Widen(*from);
  } else {
    const auto four = *reinterpret_cast<const typename Stored::Four*>(from);
    values[0] = Stored::Widen(four.x);
    values[1] = Stored::Widen(four.y);
    values[2] = Stored::Widen(four.z);
    values[3] = Stored::Widen(four.w);
  }
}

}  // namespace sauva::cuda
