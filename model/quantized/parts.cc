#include "model/quantized/parts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "kernels/half.h"
#include "model/safetensors_header.h"

namespace sauva {

uint32_t QuantizedPart::Word(int64_t i) const {
  uint32_t word;
  std::memcpy(&word, bytes.data() + i * int64_t{sizeof word}, sizeof word);
  return word;
}

float QuantizedPart::Float(int64_t i) const {
  if (dtype == "F32") {
    float value;
    std::memcpy(&value, bytes.data() + i * int64_t{sizeof value}, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes.data() + i * int64_t{sizeof bits}, sizeof bits);
  return dtype == "F16" ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

const QuantizedPart* QuantizedParts::Find(std::string_view suffix) const {
  const auto found = by_suffix.find(suffix);
  return found == by_suffix.end() ? nullptr : &found->second;
}

absl::Status QuantizedParts::Wrong(std::string_view suffix, const std::string& what) const {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", module, ".", std::string(suffix), "' ", what));
}

absl::StatusOr<const QuantizedPart*> QuantizedParts::Require(
    std::string_view suffix, std::string_view dtypes, const std::vector<int64_t>& shape) const {
  const QuantizedPart* part = Find(suffix);
  if (part == nullptr) {
    return Wrong(suffix, absl::StrCat("of shape ", ShapeText(shape), " is missing"));
  }
  const std::string names(dtypes);
  const std::vector<std::string> allowed = absl::StrSplit(names, '|');
  if (std::ranges::find(allowed, part->dtype) == allowed.end()) {
    return Wrong(suffix, absl::StrCat("has dtype ", part->dtype, ", expected ", names));
  }
  if (part->shape != shape) {
    return Wrong(suffix, absl::StrCat("has shape ", ShapeText(part->shape), ", expected ",
                                      ShapeText(shape)));
  }
  return part;
}

int64_t QuantizedParts::size_bytes() const {
  int64_t bytes = 0;
  for (const auto& [suffix, part] : by_suffix) bytes += static_cast<int64_t>(part.bytes.size());
  return bytes;
}

QuantizedMatrix MatrixOf(const QuantizedOutline& outline, std::vector<uint8_t> codes) {
  return {.kind = outline.kind,
          .bits = outline.bits,
          .rows = outline.rows,
          .columns = outline.columns,
          .group_size = outline.group_size,
          .codes = std::move(codes),
          .activation = outline.activation};
}

absl::Status ReadScalesByGroup(const QuantizedParts& parts, const QuantizedPart& scales,
                               QuantizedMatrix& matrix) {
  const int64_t groups = matrix.groups();
  matrix.scales.resize(static_cast<size_t>(matrix.rows * groups));
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t row = 0; row < matrix.rows; ++row) {
      matrix.scales[static_cast<size_t>(row * groups + group)] =
          scales.Float(group * matrix.rows + row);
    }
  }
  return CheckScales(parts, matrix.scales, groups);
}

absl::Status CheckScales(const QuantizedParts& parts, std::span<const float> scales,
                         int64_t groups) {
  for (size_t i = 0; i < scales.size(); ++i) {
    const float scale = scales[i];
    if (scale >= std::numeric_limits<float>::min() && scale <= std::numeric_limits<float>::max()) {
      continue;
    }
    const char* what = std::isnan(scale) || std::isinf(scale) ? "not finite"
                       : scale == 0                           ? "zero"
                       : scale < 0                            ? "negative"
                                                              : "subnormal";
    return absl::InvalidArgumentError(absl::StrCat(
        "module '", parts.module, "': the scale of row ", static_cast<int64_t>(i) / groups,
        ", group ", static_cast<int64_t>(i) % groups, " is ", scale, ", which is ", what));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ColumnOrder(const QuantizedParts& parts,
                                                 const QuantizedPart& group_of_column,
                                                 int64_t group_size) {
  const int64_t columns = group_of_column.shape[0];
  const int64_t groups = (columns + group_size - 1) / group_size;
  std::vector<int32_t> group(static_cast<size_t>(columns));
  for (int64_t i = 0; i < columns; ++i) {
    const auto value = static_cast<int32_t>(group_of_column.Word(i));
    if (value < 0 || value >= groups) {
      return absl::InvalidArgumentError(absl::StrCat("module '", parts.module, "': column ", i,
                                                     " is of group ", value, "; there are ",
                                                     groups));
    }
    group[static_cast<size_t>(i)] = value;
  }
  std::vector<int32_t> order(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int32_t i) { return group[static_cast<size_t>(i)]; });
  for (int64_t i = 0; i < columns; ++i) {
    const int32_t found = group[static_cast<size_t>(order[static_cast<size_t>(i)])];
    if (found != i / group_size) {
      return absl::InvalidArgumentError(absl::StrCat("module '", parts.module, "': group ",
                                                     i / group_size, " does not have the ",
                                                     group_size, " columns that group_size says"));
    }
  }
  if (std::ranges::is_sorted(order)) order.clear();
  return order;
}

}  // namespace sauva
