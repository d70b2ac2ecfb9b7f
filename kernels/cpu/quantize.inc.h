#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/numerics.h"

// Activations to int8, in vectors of the compiler's own.
namespace sauva {
namespace {

constexpr int64_t kFloatsAhead = 512;

struct FloatUnit {
  float value[kInt8Unit];
};

// Columns [first, first + 32) of a token, 0 past the end.
inline FloatUnit LoadUnit(const QuantizeArgs& args, int64_t first) {
  FloatUnit unit;
  const int64_t left = args.columns - first;
  if (args.order == nullptr && left >= kInt8Unit) {
    // Rows often come from the caches of another core.
    __builtin_prefetch(args.x + first + kFloatsAhead);
    __builtin_prefetch(args.x + first + kFloatsAhead + kInt8Unit / 2);
    for (int i = 0; i < kInt8Unit; ++i) unit.value[i] = args.x[first + i];
    return unit;
  }
  for (int i = 0; i < kInt8Unit; ++i) {
    unit.value[i] = i >= left               ? 0.0f
                    : args.order == nullptr ? args.x[first + i]
                                            : args.x[args.order[first + i]];
  }
  return unit;
}

// 8 numbers: 32 bytes, which every compiler target has some way to hold.
using Floats8 = float __attribute__((vector_size(32)));
using Integers8 = int32_t __attribute__((vector_size(32)));
using Bytes8 = int8_t __attribute__((vector_size(8)));

inline Floats8 LoadFloats(const float* from) {
  Floats8 floats;
  __builtin_memcpy(&floats, from, sizeof floats);
  return floats;
}

// combine(…) of all 8 by halves, in no order that matters.
template <class F>
inline int32_t Reduce(Integers8 all, const F& combine) {
  all = combine(all, __builtin_shuffle(all, Integers8{4, 5, 6, 7, 0, 1, 2, 3}));
  all = combine(all, __builtin_shuffle(all, Integers8{2, 3, 0, 1, 6, 7, 4, 5}));
  return combine(all, __builtin_shuffle(all, Integers8{1, 0, 3, 2, 5, 4, 7, 6}))[0];
}
inline Integers8 Larger(Integers8 a, Integers8 b) { return a > b ? a : b; }

// Magnitudes compared as integers order like the numbers, infinity and NaN on top.
inline Integers8 LargestLanes(const FloatUnit& unit) {
  const auto bits = [&](int i) {
    return reinterpret_cast<Integers8>(LoadFloats(unit.value + i)) & 0x7fffffff;
  };
  return Larger(Larger(bits(0), bits(8)), Larger(bits(16), bits(24)));
}
inline uint32_t LargestBits(Integers8 lanes) {
  return static_cast<uint32_t>(Reduce(lanes, Larger));
}

// Writes the codes and returns their sums.
inline Integers8 RoundCodes(const FloatUnit& unit, float inverse, int8_t* codes) {
  constexpr Floats8 kZeros = {};
  const Floats8 most = kZeros + kInt8Max;
  Integers8 sums = {};
#pragma GCC unroll 4
  for (int i = 0; i < kInt8Unit; i += 8) {
    const Floats8 scaled = LoadFloats(unit.value + i) * inverse;
    const Floats8 low = scaled < most ? scaled : most;
    const Floats8 bounded = low > -most ? low : -most;
    const Integers8 rounded = reinterpret_cast<Integers8>(bounded + kRoundMagic) -
                              __builtin_bit_cast(int32_t, kRoundMagic);
    const Bytes8 bytes = __builtin_convertvector(rounded, Bytes8);
    __builtin_memcpy(codes + i, &bytes, sizeof bytes);
    sums += rounded;
  }
  return sums;
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

// The units of group `index`.
struct GroupUnits {
  static constexpr int kMost = kInt8LargestGroup / kInt8Unit;
  int64_t index = 0;
  int64_t first = 0;
  int64_t count = 0;
  FloatUnit units[kMost];
};

inline void LoadGroup(const QuantizeArgs& args, int64_t index, GroupUnits& group) {
  group.index = index;
  group.first = index * args.group_units;
  const int64_t left = (args.columns + kInt8Unit - 1) / kInt8Unit - group.first;
  group.count = left < args.group_units ? left : args.group_units;
  for (int64_t i = 0; i < group.count; ++i) {
    group.units[i] = LoadUnit(args, (group.first + i) * kInt8Unit);
  }
}

inline uint32_t LargestBits(const GroupUnits& group) {
  Integers8 largest = {};
  for (int64_t i = 0; i < group.count; ++i) {
    largest = Larger(largest, LargestLanes(group.units[i]));
  }
  return LargestBits(largest);
}

inline void QuantizeGroup(const QuantizeArgs& args, const GroupUnits& group, CodeScale by) {
  Integers8 sums = {};
  for (int64_t i = 0; i < group.count; ++i) {
    int8_t* codes = args.codes + (group.first + i) * args.stride * kInt8Unit;
    if (by.inverse != 0) {
      sums += RoundCodes(group.units[i], by.inverse, codes);
    } else {
      for (int c = 0; c < kInt8Unit; ++c) codes[c] = 0;
    }
  }
  const int64_t at = group.index * args.stride;
  args.scales[at] = by.scale;
  args.starts[at] = -args.offset * Reduce(sums, [](Integers8 a, Integers8 b) { return a + b; });
}

// Sets outliers, which include NaN, to 0 and returns their bits.
inline uint32_t TakeOutliers(FloatUnit& unit, float threshold) {
  uint32_t outliers = 0;
  for (int i = 0; i < kInt8Unit; ++i) {
    const bool outlier = !(__builtin_fabsf(unit.value[i]) < threshold);
    outliers |= static_cast<uint32_t>(outlier) << i;
    unit.value[i] = outlier ? 0.0f : unit.value[i];
  }
  return outliers;
}

inline void QuantizeBesideOutliers(const QuantizeArgs& args) {
  const int64_t units = (args.columns + kInt8Unit - 1) / kInt8Unit;
  Integers8 largest = {};
  for (int64_t i = 0; i < units; ++i) {
    FloatUnit unit = LoadUnit(args, i * kInt8Unit);
    args.outliers[i] = TakeOutliers(unit, args.outlier_threshold);
    largest = Larger(largest, LargestLanes(unit));
  }
  const CodeScale by = ScaleFor(LargestBits(largest));
  GroupUnits group;
  for (int64_t i = args.first_group; i < args.end_group; ++i) {
    LoadGroup(args, i, group);
    for (int64_t u = 0; u < group.count; ++u) {
      TakeOutliers(group.units[u], args.outlier_threshold);
    }
    QuantizeGroup(args, group, by);
  }
}

inline void QuantizeKernel(const QuantizeArgs& args) {
  if (args.rounding == ActivationRounding::kBesideOutliers) return QuantizeBesideOutliers(args);
  GroupUnits group;
  for (int64_t i = args.first_group; i < args.end_group; ++i) {
    LoadGroup(args, i, group);
    CodeScale by = ScaleFor(LargestBits(group));
    if (args.rounding == ActivationRounding::kStatic && by.scale == by.scale) {
      by = {args.static_scale, 1.0f / args.static_scale};
    }
    QuantizeGroup(args, group, by);
  }
}

}  // namespace
}  // namespace sauva
