#include "kernels/half.h"

#include <bit>
#include <cstring>

#include "kernels/vector_clones.h"

namespace sauva {
namespace {

// All ones where a < b, of numbers below 2^31; in arithmetic, since from a comparison compilers
// make a branch and then take one number at a time.
inline uint32_t Below(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<int32_t>(a - b) >> 31);
}

inline uint32_t Choose(uint32_t mask, uint32_t a, uint32_t b) { return (a & mask) | (b & ~mask); }

inline float Widen(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  // Zero or subnormal: mantissa * 2^-24.
  const float small = static_cast<float>(static_cast<int32_t>(mantissa)) * 0x1p-24f;
  const uint32_t wide_exponent = exponent + Choose(Below(exponent, 31), 112, 224);
  const uint32_t large = wide_exponent << 23 | mantissa << 13;
  return std::bit_cast<float>(sign |
                              Choose(Below(exponent, 1), std::bit_cast<uint32_t>(small), large));
}

inline uint16_t Narrow(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t odd = magnitude >> 13 & 1u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  // Subnormal result: adding 0.5 leaves a multiple of 2^-24, rounded to nearest even.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000u;
  const uint32_t quiet_nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  const uint32_t finite = Choose(Below(magnitude, 0x38800000u), subnormal, normal);
  const uint32_t large = Choose(Below(0x7f800000u, magnitude), quiet_nan, 0x7c00u);
  return static_cast<uint16_t>(sign | Choose(Below(magnitude, 0x47800000u), finite, large));
}

inline float WidenBFloat16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

inline uint16_t LoadBits(const std::byte* from, size_t index) {
  uint16_t bits;
  std::memcpy(&bits, from + index * sizeof bits, sizeof bits);
  return bits;
}

}  // namespace

float HalfToFloat(uint16_t half) { return Widen(half); }

SAUVA_VECTOR_CLONES
void HalvesToFloats(const std::byte* halves, std::span<float> floats) {
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = Widen(LoadBits(halves, i));
}

uint16_t FloatToHalf(float value) { return Narrow(value); }

SAUVA_VECTOR_CLONES
bool FloatsToHalves(std::span<const float> floats, uint16_t* halves) {
  uint32_t lost = 0;
  for (size_t i = 0; i < floats.size(); ++i) {
    halves[i] = Narrow(floats[i]);
    lost |= std::bit_cast<uint32_t>(Widen(halves[i])) ^ std::bit_cast<uint32_t>(floats[i]);
  }
  return lost == 0;
}

float BFloat16ToFloat(uint16_t value) { return WidenBFloat16(value); }

void BFloat16sToFloats(const std::byte* values, std::span<float> floats) {
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = WidenBFloat16(LoadBits(values, i));
}

}  // namespace sauva
