#include "kernels/weight_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

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

void ReadRow(const WeightSource& source, int64_t row, std::span<float> values) {
  const auto columns = static_cast<size_t>(source.columns);
  const std::byte* at = source.bytes.data() + row * source.columns * SizeOf(source.dtype);
  if (source.dtype == DType::kF32) {
    std::memcpy(values.data(), at, columns * sizeof(float));
    return;
  }
  const auto widen = source.dtype == DType::kF16 ? HalfToFloat : BFloat16ToFloat;
  for (size_t i = 0; i < columns; ++i) {
    uint16_t bits;
    std::memcpy(&bits, at + i * sizeof bits, sizeof bits);
    values[i] = widen(bits);
  }
}

namespace {

// Returns the row's scale.
absl::StatusOr<float> QuantizeRow(std::span<const float> values, std::span<int8_t> codes) {
  float largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const float magnitude = std::fabs(values[i]);
    if (!(magnitude <= std::numeric_limits<float>::max())) {
      return absl::InvalidArgumentError(
          absl::StrCat("column ", i, " is not finite and cannot become int8"));
    }
    if (magnitude > largest) largest = magnitude;
  }
  const float scale = largest / kInt8Max;
  if (scale < std::numeric_limits<float>::min()) {
    std::fill(codes.begin(), codes.end(), int8_t{0});
    return 0.0f;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<int8_t>((values[i] / scale + kRoundMagic) - kRoundMagic);
  }
  return scale;
}

}  // namespace

absl::Status ForEachInt8Row(const WeightSource& source, const Int8RowReader& reader) {
  std::vector<float> values(static_cast<size_t>(source.columns));
  std::vector<int8_t> codes(values.size());
  for (int64_t row = 0; row < source.rows; ++row) {
    ReadRow(source, row, values);
    const absl::StatusOr<float> scale = QuantizeRow(values, codes);
    if (!scale.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", source.name, ": row ", row, ", ", scale.status().message()));
    }
    reader(row, codes, *scale);
  }
  return absl::OkStatus();
}

}  // namespace sauva
