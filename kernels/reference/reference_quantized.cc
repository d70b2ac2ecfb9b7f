#include "kernels/reference/reference_quantized.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/numerics.h"

namespace sauva::reference {
namespace {

// The columns of activation group `index`.
struct Range {
  int64_t first, end;
};
Range GroupRange(const QuantizedMatrix& matrix, int64_t index) {
  const int64_t size = ActivationGroup(matrix);
  return {index * size, std::min(matrix.columns, (index + 1) * size)};
}

// Infinity or NaN when one of them is.
float LargestMagnitude(const QuantizedRow& row, Range range) {
  uint32_t largest_bits = 0;  // as integers magnitudes order like the numbers, NaN on top
  for (int64_t i = range.first; i < range.end; ++i) {
    const float value = row.values[static_cast<size_t>(i)];
    largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(value) & 0x7fffffffu);
  }
  return std::bit_cast<float>(largest_bits);
}

void RoundCodes(QuantizedRow& row, Range range, float inverse) {
  for (int64_t i = range.first; i < range.end; ++i) {
    const auto index = static_cast<size_t>(i);
    const float scaled = row.values[index] * inverse;
    const float low = scaled < kInt8Max ? scaled : kInt8Max;
    const float bounded = low > -kInt8Max ? low : -kInt8Max;
    row.codes[index] = static_cast<int8_t>((bounded + kRoundMagic) - kRoundMagic);
  }
}

void RoundGroups(QuantizedRow& row, const QuantizedMatrix& matrix) {
  for (size_t group = 0; group < row.scales.size(); ++group) {
    const Range range = GroupRange(matrix, static_cast<int64_t>(group));
    const float largest = LargestMagnitude(row, range);
    float& scale = row.scales[group];
    if (!std::isfinite(largest)) {
      scale = std::nanf("");  // its codes stay 0
    } else if (matrix.activation == ActivationKind::kInt8Static) {
      scale = matrix.activation_scale;
      RoundCodes(row, range, 1 / matrix.activation_scale);
    } else if (largest >= kInt8SmallestMagnitude) {
      scale = largest / kInt8Max;
      RoundCodes(row, range, kInt8Max / largest);
    }
  }
}

// One scale for all that is no outlier.
void RoundBesideOutliers(QuantizedRow& row, const QuantizedMatrix& matrix) {
  const std::vector<float> values = row.values;
  for (int64_t i = 0; i < matrix.columns; ++i) {
    float& value = row.values[static_cast<size_t>(i)];
    if (std::fabs(value) < matrix.outlier_threshold) continue;
    row.outliers.push_back(i);  // NaN too
    value = 0;
  }
  const Range all = {0, matrix.columns};
  const float largest = LargestMagnitude(row, all);
  if (largest >= kInt8SmallestMagnitude) {
    std::fill(row.scales.begin(), row.scales.end(), largest / kInt8Max);
    RoundCodes(row, all, kInt8Max / largest);
  }
  row.values = values;
}

// What int8 codes are multiplied by, exactly.
int64_t IntegerWeight(const QuantizedMatrix& matrix, int64_t row, int64_t column) {
  const int code = matrix.codes[static_cast<size_t>(row * matrix.columns + column)];
  if (matrix.kind == CodeKind::kNf4) return kNf4Fixed[code];
  return code -
         matrix.zeros[static_cast<size_t>(row * matrix.groups() + column / matrix.group_size)];
}

}  // namespace

QuantizedRow QuantizeRow(const QuantizedMatrix& matrix, const float* x) {
  const auto columns = static_cast<size_t>(matrix.columns);
  QuantizedRow row;
  row.codes.resize(columns);
  const auto group = static_cast<size_t>(ActivationGroup(matrix));
  row.scales.resize((columns + group - 1) / group);
  row.values.assign(x, x + columns);
  for (size_t i = 0; i < matrix.column_order.size(); ++i) row.values[i] = x[matrix.column_order[i]];
  if (matrix.activation == ActivationKind::kLlmInt8) {
    RoundBesideOutliers(row, matrix);
  } else {
    RoundGroups(row, matrix);
  }
  return row;
}

float DotCodes(const QuantizedMatrix& matrix, int64_t row, const QuantizedRow& x) {
  const int64_t step = ActivationGroup(matrix);
  float sum = 0;
  for (int64_t group = 0; group < matrix.groups(); ++group) {
    const int64_t end = std::min(matrix.columns, (group + 1) * matrix.group_size);
    float inner = -0.0f;
    for (int64_t first = group * matrix.group_size; first < end; first += step) {
      int64_t dot = 0;
      for (int64_t i = first; i < std::min(end, first + step); ++i) {
        dot += IntegerWeight(matrix, row, i) * x.codes[static_cast<size_t>(i)];
      }
      inner = std::fma(static_cast<float>(dot), x.scales[static_cast<size_t>(first / step)], inner);
    }
    const float scale = matrix.scales[static_cast<size_t>(row * matrix.groups() + group)];
    sum = std::fma(inner, matrix.kind == CodeKind::kNf4 ? scale * kNf4FixedStep : scale, sum);
  }
  return sum;
}

float DotOutliers(const QuantizedMatrix& matrix, int64_t row, const QuantizedRow& x) {
  float sum = 0;
  for (const int64_t i : x.outliers) {
    sum = std::fma(x.values[static_cast<size_t>(i)], Dequantize(matrix, row, i), sum);
  }
  return sum;
}

}  // namespace sauva::reference
