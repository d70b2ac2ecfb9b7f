#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/numerics.h"

// Activations to int8. Plain loops over 32 numbers, which compilers turn into vectors.
namespace sauva {
namespace {

struct FloatUnit {
  float value[kInt8Group];
};

// Columns [first, first + 32) of a token, 0 past the end.
inline FloatUnit LoadUnit(const QuantizeArgs& args, int64_t first) {
  FloatUnit unit;
  const int64_t left = args.columns - first;
  if (args.order == nullptr && left >= kInt8Group) {
    for (int i = 0; i < kInt8Group; ++i) unit.value[i] = args.x[first + i];
    return unit;
  }
  for (int i = 0; i < kInt8Group; ++i) {
    unit.value[i] = i >= left               ? 0.0f
                    : args.order == nullptr ? args.x[first + i]
                                            : args.x[args.order[first + i]];
  }
  return unit;
}

// Magnitudes compared as integers order like the numbers, infinity and NaN on top.
inline uint32_t LargestBits(const FloatUnit& unit) {
  uint32_t largest = 0;
  for (int i = 0; i < kInt8Group; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, unit.value[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// Writes the codes and returns their sum.
inline int32_t RoundCodes(const FloatUnit& unit, float inverse, int8_t* codes) {
  int32_t sum = 0;
  for (int i = 0; i < kInt8Group; ++i) {
    const float scaled = unit.value[i] * inverse;
    const float low = scaled < kInt8Max ? scaled : kInt8Max;
    const float bounded = low > -kInt8Max ? low : -kInt8Max;
    const int32_t code = static_cast<int32_t>(__builtin_bit_cast(uint32_t, bounded + kRoundMagic) -
                                              __builtin_bit_cast(uint32_t, kRoundMagic));
    codes[i] = static_cast<int8_t>(code);
    sum += code;
  }
  return sum;
}

// A scale and what turns numbers into codes of it; inverse 0: all codes are 0.
struct CodeScale {
  float scale, inverse;
};

inline CodeScale ScaleFor(uint32_t largest_bits) {
  constexpr uint32_t kInfinityBits = 0x7f800000u;
  if (largest_bits >= kInfinityBits) return {__builtin_nanf(""), 0};
  const float largest = __builtin_bit_cast(float, largest_bits);
  if (largest < kInt8SmallestMagnitude) return {0, 0};
  return {largest / kInt8Max, kInt8Max / largest};
}

inline void QuantizeUnit(const QuantizeArgs& args, int64_t index, const FloatUnit& unit,
                         CodeScale by) {
  const int64_t at = index * args.stride;
  int8_t* codes = args.codes + at * kInt8Group;
  int32_t sum = 0;
  if (by.inverse != 0) {
    sum = RoundCodes(unit, by.inverse, codes);
  } else {
    for (int i = 0; i < kInt8Group; ++i) codes[i] = 0;
  }
  args.scales[at] = by.scale;
  args.sums[at] = sum;
  args.starts[at] = -args.offset * sum;
}

// Sets outliers, which include NaN, to 0 and returns their bits.
inline uint32_t TakeOutliers(FloatUnit& unit, float threshold) {
  uint32_t outliers = 0;
  for (int i = 0; i < kInt8Group; ++i) {
    const bool outlier = !(__builtin_fabsf(unit.value[i]) < threshold);
    outliers |= static_cast<uint32_t>(outlier) << i;
    unit.value[i] = outlier ? 0.0f : unit.value[i];
  }
  return outliers;
}

inline void QuantizeBesideOutliers(const QuantizeArgs& args) {
  const int64_t units = (args.columns + kInt8Group - 1) / kInt8Group;
  uint32_t largest = 0;
  for (int64_t i = 0; i < units; ++i) {
    FloatUnit unit = LoadUnit(args, i * kInt8Group);
    args.outliers[i] = TakeOutliers(unit, args.outlier_threshold);
    const uint32_t bits = LargestBits(unit);
    largest = bits > largest ? bits : largest;
  }
  const CodeScale by = ScaleFor(largest);
  for (int64_t i = 0; i < units; ++i) {
    FloatUnit unit = LoadUnit(args, i * kInt8Group);
    TakeOutliers(unit, args.outlier_threshold);
    QuantizeUnit(args, i, unit, by);
  }
}

inline void QuantizeKernel(const QuantizeArgs& args) {
  if (args.rounding == ActivationRounding::kBesideOutliers) return QuantizeBesideOutliers(args);
  const int64_t units = (args.columns + kInt8Group - 1) / kInt8Group;
  for (int64_t i = 0; i < units; ++i) {
    const FloatUnit unit = LoadUnit(args, i * kInt8Group);
    CodeScale by = ScaleFor(LargestBits(unit));
    if (args.rounding == ActivationRounding::kStatic && by.scale == by.scale) {
      by = {args.static_scale, 1.0f / args.static_scale};
    }
    QuantizeUnit(args, i, unit, by);
  }
}

}  // namespace
}  // namespace sauva
