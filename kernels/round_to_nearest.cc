#include "kernels/round_to_nearest.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/finite.h"
#include "kernels/half.h"
#include "kernels/numerics.h"
#include "kernels/vector_clones.h"
#include "kernels/weight_source.h"

namespace sauva {
namespace {

constexpr uint8_t kInt8Zero = 128;
constexpr uint8_t kNf4Zero = 7;  // the code of 0
// Numbers side by side, where compilers may not put those that come one after the other.
constexpr size_t kAtOnce = 8;

// By value where codes are simply stored: then compilers know that none lies over it.
struct GroupView {
  std::span<const float> values;
  std::span<uint8_t> codes;
  float* scale;
  uint8_t* zero;  // null for NF4
};

float RoundEven(float x) { return (x + kRoundMagic) - kRoundMagic; }

// Of finite numbers, whose magnitudes order like their bits.
float LargestMagnitude(std::span<const float> values) {
  int32_t largest = 0;
  for (const float value : values) {
    const int32_t bits = std::bit_cast<int32_t>(value) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return std::bit_cast<float>(largest);
}

// The least and the largest of the numbers and 0. Several at a time, which compilers may not do
// with one after the other.
struct Range {
  float low = 0, high = 0;
};
SAUVA_VECTOR_CLONES
Range RangeOf(std::span<const float> values) {
  float low[kAtOnce] = {}, high[kAtOnce] = {};
  size_t i = 0;
  for (; i + kAtOnce <= values.size(); i += kAtOnce) {
    for (size_t j = 0; j < kAtOnce; ++j) {
      low[j] = std::min(low[j], values[i + j]);
      high[j] = std::max(high[j], values[i + j]);
    }
  }
  for (; i < values.size(); ++i) {
    low[0] = std::min(low[0], values[i]);
    high[0] = std::max(high[0], values[i]);
  }
  return {*std::min_element(low, low + kAtOnce), *std::max_element(high, high + kAtOnce)};
}

absl::Status CheckFinite(const WeightSource& source, int64_t row, std::span<const float> values) {
  if (AllFinite(values)) return absl::OkStatus();
  const auto found = std::ranges::find_if_not(values, [](float x) { return std::isfinite(x); });
  return absl::InvalidArgumentError(absl::StrCat("tensor ", source.name, ": row ", row, ", column ",
                                                 found - values.begin(),
                                                 " is not finite and cannot be quantized"));
}

// Calls round(group) for each group of each row of `source`; `shape` says how to cut it.
template <class F>
absl::StatusOr<QuantizedMatrix> ForEachGroup(const WeightSource& source, QuantizedMatrix matrix,
                                             std::vector<uint8_t> codes, const F& round) {
  RETURN_IF_ERROR(ValidateWeightSource(source));
  matrix.rows = source.rows;
  matrix.columns = source.columns;
  matrix.group_size = std::min(matrix.group_size, source.columns);
  RETURN_IF_ERROR(ValidateQuantizedShape(source.name, matrix));
  const bool integer = matrix.kind == CodeKind::kInteger;
  matrix.codes = std::move(codes);
  matrix.codes.resize(static_cast<size_t>(matrix.rows * matrix.columns));
  matrix.scales.resize(static_cast<size_t>(matrix.rows * matrix.groups()));
  matrix.zeros.resize(integer ? matrix.scales.size() : 0);
  std::vector<float> values(static_cast<size_t>(matrix.columns));
  size_t index = 0;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    ReadRow(source, row, values);
    RETURN_IF_ERROR(CheckFinite(source, row, values));
    for (int64_t first = 0; first < matrix.columns; first += matrix.group_size, ++index) {
      const auto count = static_cast<size_t>(std::min(matrix.group_size, matrix.columns - first));
      round(
          GroupView{.values = std::span(values).subspan(static_cast<size_t>(first), count),
                    .codes = std::span(matrix.codes)
                                 .subspan(static_cast<size_t>(row * matrix.columns + first), count),
                    .scale = &matrix.scales[index],
                    .zero = integer ? &matrix.zeros[index] : nullptr});
    }
  }
  return matrix;
}

SAUVA_VECTOR_CLONES
void RoundInt8Group(GroupView group) {
  const float scale = LargestMagnitude(group.values) / kInt8Max;
  *group.zero = kInt8Zero;
  if (scale < std::numeric_limits<float>::min()) {
    *group.scale = 0;
    std::fill(group.codes.begin(), group.codes.end(), kInt8Zero);
    return;
  }
  *group.scale = scale;
  for (size_t i = 0; i < group.values.size(); ++i) {
    group.codes[i] = static_cast<uint8_t>(RoundEven(group.values[i] / scale) + kInt8Zero);
  }
}

// The f16 nearest to a step > 0, as formats publish it; f32 beyond the range of f16.
float PublishedStep(float step) {
  constexpr float kSmallestHalf = 0x1p-24f;
  constexpr float kLargestHalf = 65504.0f;
  if (step > kLargestHalf) return step;
  return std::max(kSmallestHalf, HalfToFloat(FloatToHalf(step)));
}

SAUVA_VECTOR_CLONES
void RoundIntegerGroup(GroupView group, int bits) {
  const auto [low, high] = RangeOf(group.values);
  const auto steps = static_cast<float>((1 << bits) - 1);
  const float step = high / steps - low / steps;  // high - low might overflow
  if (step < std::numeric_limits<float>::min()) {
    *group.scale = 0;
    *group.zero = 0;
    std::fill(group.codes.begin(), group.codes.end(), uint8_t{0});
    return;
  }
  const float scale = PublishedStep(step);
  const float zero = std::clamp(RoundEven(-low / scale), 0.0f, steps);
  *group.scale = scale;
  *group.zero = static_cast<uint8_t>(zero);
  for (size_t i = 0; i < group.values.size(); ++i) {
    const float code = RoundEven(group.values[i] / scale) + zero;
    group.codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0f, steps));
  }
}

SAUVA_VECTOR_CLONES
void RoundNf4Group(const GroupView& group) {
  const float largest = LargestMagnitude(group.values);
  const float inverse = 1.0f / largest;
  if (!std::isfinite(inverse)) {
    *group.scale = 0;
    std::fill(group.codes.begin(), group.codes.end(), kNf4Zero);
    return;
  }
  *group.scale = largest;
  float between[15];
  for (int i = 0; i < 15; ++i) between[i] = (kNf4Values[i] + kNf4Values[i + 1]) * 0.5f;
  const size_t size = group.values.size();
  for (size_t i = 0; i < size; i += kAtOnce) {
    const size_t count = std::min(kAtOnce, size - i);
    float units[kAtOnce] = {};
    for (size_t j = 0; j < count; ++j) units[j] = group.values[i + j] * inverse;
    int32_t codes[kAtOnce] = {};  // so many borders are below
    for (const float border : between) {
      for (size_t j = 0; j < kAtOnce; ++j) codes[j] += static_cast<int32_t>(border < units[j]);
    }
    for (size_t j = 0; j < count; ++j) group.codes[i + j] = static_cast<uint8_t>(codes[j]);
  }
}

}  // namespace

absl::StatusOr<QuantizedMatrix> RoundToInt8(const WeightSource& source,
                                            std::vector<uint8_t> codes) {
  return ForEachGroup(source, {.bits = 8, .group_size = source.columns}, std::move(codes),
                      RoundInt8Group);
}

absl::StatusOr<QuantizedMatrix> RoundToGroups(const WeightSource& source, int bits,
                                              int64_t group_size, std::vector<uint8_t> codes) {
  return ForEachGroup(source, {.bits = bits, .group_size = group_size}, std::move(codes),
                      [bits](const GroupView& group) { RoundIntegerGroup(group, bits); });
}

absl::StatusOr<QuantizedMatrix> RoundToNf4(const WeightSource& source, int64_t group_size,
                                           std::vector<uint8_t> codes) {
  return ForEachGroup(source, {.kind = CodeKind::kNf4, .group_size = group_size}, std::move(codes),
                      RoundNf4Group);
}

}  // namespace sauva
