#include "kernels/weight_source.h"

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"
#include "kernels/quantized_matrix.h"

namespace sauva {

absl::Status ValidateWeightSource(const WeightSource& source) {
  if (source.quantized != nullptr) {
    const QuantizedMatrix& matrix = *source.quantized;
    if (matrix.rows != source.rows || matrix.columns != source.columns) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", source.name, ": ", source.rows, " x ", source.columns,
                       " expected, a quantized matrix of ", matrix.rows, " x ", matrix.columns));
    }
    return ValidateQuantizedMatrix(source.name, matrix);
  }
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
  values = values.first(static_cast<size_t>(source.columns));
  const std::byte* at = source.bytes.data() + row * source.columns * SizeOf(source.dtype);
  if (source.dtype == DType::kF32) {
    std::memcpy(values.data(), at, values.size_bytes());
  } else if (source.dtype == DType::kF16) {
    HalvesToFloats(at, values);
  } else {
    BFloat16sToFloats(at, values);
  }
}

}  // namespace sauva
