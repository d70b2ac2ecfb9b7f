#include "kernels/half.h"

#include <bit>
#include <cstring>

namespace sauva {
namespace {

// Without a branch, so that compilers take several numbers at a time.
inline float Widen(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  // Zero or subnormal: mantissa * 2^-24.
  const float small = static_cast<float>(static_cast<int32_t>(mantissa)) * 0x1p-24f;
  const uint32_t is_small = exponent == 0 ? ~0u : 0u;
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + 112;
  const uint32_t large = wide_exponent << 23 | mantissa << 13;
  return std::bit_cast<float>(sign | (std::bit_cast<uint32_t>(small) & is_small) |
                              (large & ~is_small));
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

void HalvesToFloats(const std::byte* halves, std::span<float> floats) {
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = Widen(LoadBits(halves, i));
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN, made quiet
    return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  }
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 2^16
  if (magnitude < 0x38800000u) {
    // Subnormal result: adding 0.5 leaves a multiple of 2^-24, rounded to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + odd;
  return static_cast<uint16_t>(sign | rounded >> 13);
}

float BFloat16ToFloat(uint16_t value) { return WidenBFloat16(value); }

void BFloat16sToFloats(const std::byte* values, std::span<float> floats) {
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = WidenBFloat16(LoadBits(values, i));
}

}  // namespace sauva
