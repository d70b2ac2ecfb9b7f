#include "kernels/quantized_matrix.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/finite.h"
#include "kernels/numerics.h"

namespace sauva {
namespace {

template <class... Parts>
absl::Status Invalid(const std::string& name, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", parts...));
}

absl::Status ValidateCount(const std::string& name, const char* what, size_t found,
                           int64_t expected) {
  if (static_cast<int64_t>(found) == expected) return absl::OkStatus();
  return Invalid(name, expected, " ", what, " expected, found ", found);
}

// The first value above `limit` is an error that says where it stands in rows of `columns`.
absl::Status ValidateBelow(const std::string& name, const char* what,
                           const std::vector<uint8_t>& values, int64_t columns, int limit) {
  if (limit >= std::numeric_limits<uint8_t>::max()) return absl::OkStatus();
  uint8_t most = 0;
  for (const uint8_t value : values) most = std::max(most, value);
  if (most <= limit) return absl::OkStatus();
  const auto found =
      std::find_if(values.begin(), values.end(), [limit](uint8_t value) { return value > limit; });
  const int64_t index = found - values.begin();
  return Invalid(name, what, " ", static_cast<int>(*found), " at row ", index / columns, ", ",
                 index % columns, "; at most ", limit);
}

absl::Status ValidateScales(const std::string& name, const QuantizedMatrix& m) {
  if (AllFinite(m.scales)) return absl::OkStatus();
  for (size_t i = 0; i < m.scales.size(); ++i) {
    if (std::isfinite(m.scales[i])) continue;
    const auto index = static_cast<int64_t>(i);
    return Invalid(name, "scale ", m.scales[i], " at row ", index / m.groups(), ", group ",
                   index % m.groups(), " is not finite");
  }
  return absl::OkStatus();
}

absl::Status ValidateColumnOrder(const std::string& name, const QuantizedMatrix& m) {
  if (m.column_order.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(ValidateCount(name, "columns in the order", m.column_order.size(), m.columns));
  std::vector<bool> seen(static_cast<size_t>(m.columns));
  for (size_t i = 0; i < m.column_order.size(); ++i) {
    const int32_t column = m.column_order[i];
    if (column < 0 || column >= m.columns || seen[static_cast<size_t>(column)]) {
      return Invalid(name, "column_order is no permutation of ", m.columns, " columns: entry ", i,
                     " is ", column);
    }
    seen[static_cast<size_t>(column)] = true;
  }
  return absl::OkStatus();
}

absl::Status ValidateActivation(const std::string& name, const QuantizedMatrix& m) {
  const bool scale_is_usable = m.activation_scale >= kInt8SmallestMagnitude &&
                               m.activation_scale <= 1 / kInt8SmallestMagnitude;
  if (m.activation == ActivationKind::kInt8Static && !scale_is_usable) {
    return Invalid(name, "static activation scale ", m.activation_scale, "; from ",
                   kInt8SmallestMagnitude, " to ", 1 / kInt8SmallestMagnitude);
  }
  if (m.activation == ActivationKind::kLlmInt8 && !(m.outlier_threshold > 0)) {
    return Invalid(name, "outlier threshold ", m.outlier_threshold, "; it must be positive");
  }
  return absl::OkStatus();
}

}  // namespace

int64_t ActivationGroup(const QuantizedMatrix& m) {
  int64_t size = kInt8LargestGroup;
  while (m.group_size < m.columns && m.group_size % size != 0) size /= 2;
  return size;
}

absl::Status ValidateQuantizedShape(const std::string& name, const QuantizedMatrix& m) {
  constexpr int64_t kMost = int64_t{1} << 31;
  if (m.rows <= 0 || m.columns <= 0 || m.rows >= kMost || m.columns >= kMost) {
    return Invalid(name, "a quantized matrix of ", m.rows, " x ", m.columns);
  }
  const bool bits_known =
      m.bits == 4 || (m.kind == CodeKind::kInteger && (m.bits == 3 || m.bits == 8));
  if (!bits_known) {
    return Invalid(name, "codes of ", m.bits, " bits; ",
                   m.kind == CodeKind::kNf4 ? "NF4 has 4" : "integers have 3, 4 or 8");
  }
  if (m.group_size <= 0 || (m.group_size % kInt8Unit != 0 && m.group_size < m.columns)) {
    return Invalid(name, "groups of ", m.group_size, " columns; multiples of ", kInt8Unit,
                   " and whole rows (", m.columns, ") are supported");
  }
  return absl::OkStatus();
}

absl::Status ValidateQuantizedMatrix(const std::string& name, const QuantizedMatrix& m) {
  RETURN_IF_ERROR(ValidateQuantizedShape(name, m));
  const bool integer = m.kind == CodeKind::kInteger;
  RETURN_IF_ERROR(ValidateCount(name, "codes", m.codes.size(), m.rows * m.columns));
  RETURN_IF_ERROR(ValidateCount(name, "scales", m.scales.size(), m.rows * m.groups()));
  RETURN_IF_ERROR(
      ValidateCount(name, "zero points", m.zeros.size(), integer ? m.rows * m.groups() : 0));
  RETURN_IF_ERROR(ValidateBelow(name, "code", m.codes, m.columns, (1 << m.bits) - 1));
  RETURN_IF_ERROR(ValidateBelow(name, "zero point", m.zeros, m.groups(), 1 << m.bits));
  RETURN_IF_ERROR(ValidateScales(name, m));
  RETURN_IF_ERROR(ValidateColumnOrder(name, m));
  return ValidateActivation(name, m);
}

float Dequantize(const QuantizedMatrix& m, int64_t row, int64_t code_column) {
  const int code = m.codes[static_cast<size_t>(row * m.columns + code_column)];
  const auto group = static_cast<size_t>(row * m.groups() + code_column / m.group_size);
  const float value =
      m.kind == CodeKind::kNf4 ? kNf4Values[code] : static_cast<float>(code - m.zeros[group]);
  return value * m.scales[group];
}

}  // namespace sauva
