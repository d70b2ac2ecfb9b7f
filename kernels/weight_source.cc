#include "kernels/weight_source.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"
#include "kernels/numerics.h"

namespace sauva {

absl::Status ValidateWeightSource(const WeightSource& source) {
  const bool is_float =
      source.dtype == DType::kF32 || source.dtype == DType::kF16 || source.dtype == DType::kBF16;
  if (!is_float) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", source.name, ": a weight of type ",
                                                   Name(source.dtype),
                                                   "; f32, f16 and bf16 are known"));
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  if (source.rows <= 0 || source.columns <= 0 || source.rows >= kMost || source.columns >= kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", source.name, ": a weight of ", source.rows, " x ", source.columns));
  }
  const int64_t expected = source.rows * source.columns;
  const int64_t size = SizeOf(source.dtype);
  if (expected > std::numeric_limits<int64_t>::max() / size ||
      static_cast<int64_t>(source.bytes.size()) != expected * size) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", source.name, ": ", source.rows, " x ",
                                                   source.columns, " ", Name(source.dtype), " in ",
                                                   source.bytes.size(), " bytes"));
  }
  return absl::OkStatus();
}

float ElementAsFloat(const WeightSource& source, int64_t index) {
  const std::byte* at = source.bytes.data() + index * SizeOf(source.dtype);
  if (source.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return source.dtype == DType::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

absl::Status QuantizeRow(const WeightSource& source, int64_t row, std::span<int8_t> codes,
                         float& scale) {
  float largest = 0;
  for (int64_t i = 0; i < source.columns; ++i) {
    const float magnitude = std::fabs(ElementAsFloat(source, row * source.columns + i));
    if (!(magnitude <= std::numeric_limits<float>::max())) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", source.name, ": row ", row,
                                                     ", column ", i,
                                                     " is not finite and cannot become int8"));
    }
    if (magnitude > largest) largest = magnitude;
  }
  scale = largest / kInt8Max;
  if (scale < std::numeric_limits<float>::min()) scale = 0;
  for (int64_t i = 0; i < source.columns; ++i) {
    const float value = ElementAsFloat(source, row * source.columns + i);
    const float rounded = scale == 0 ? 0.0f : (value / scale + kRoundMagic) - kRoundMagic;
    codes[static_cast<size_t>(i)] = static_cast<int8_t>(rounded);
  }
  return absl::OkStatus();
}

}  // namespace sauva
