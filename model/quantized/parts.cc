#include "model/quantized/parts.h"

#include <algorithm>
#include <array>
#include <bit>
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

float QuantizedPart::Float(int64_t i) const {
  float value;
  Floats(i, {&value, 1});
  return value;
}

void QuantizedPart::Floats(int64_t first, std::span<float> floats) const {
  const std::byte* const from = bytes.data() + first * (dtype == "F32" ? 4 : 2);
  if (dtype == "F32") {
    std::memcpy(floats.data(), from, floats.size_bytes());
  } else if (dtype == "F16") {
    HalvesToFloats(from, floats);
  } else {
    BFloat16sToFloats(from, floats);
  }
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

void ReadSigned(const QuantizedPart& weight, std::vector<uint8_t>& codes) {
  codes.resize(weight.bytes.size());
  std::ranges::transform(weight.bytes, codes.begin(), [](std::byte code) {
    return static_cast<uint8_t>(code ^ std::byte{128});
  });
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
  constexpr int64_t kRows = 64;  // whose scales fit in a cache together
  const int64_t groups = matrix.groups();
  matrix.scales.resize(static_cast<size_t>(matrix.rows * groups));
  std::array<float, kRows> of_group;
  for (int64_t first = 0; first < matrix.rows; first += kRows) {
    const auto rows = static_cast<size_t>(std::min(kRows, matrix.rows - first));
    float* const to = matrix.scales.data() + first * groups;
    for (int64_t group = 0; group < groups; ++group) {
      scales.Floats(group * matrix.rows + first, std::span(of_group).first(rows));
      for (size_t r = 0; r < rows; ++r) to[static_cast<int64_t>(r) * groups + group] = of_group[r];
    }
  }
  return CheckScales(parts, matrix.scales, groups);
}

constexpr auto kSmallestNormal = std::bit_cast<int32_t>(std::numeric_limits<float>::min());
constexpr auto kLargest = std::bit_cast<int32_t>(std::numeric_limits<float>::max());

absl::Status CheckScales(const QuantizedParts& parts, std::span<const float> scales,
                         int64_t groups) {
  // Without a branch, so that compilers take several at a time.
  const auto is_bad = [](float scale) {
    const auto bits = std::bit_cast<int32_t>(scale);
    return (bits < kSmallestNormal) | (bits > kLargest);
  };
  int bad = 0;
  for (const float scale : scales) bad |= is_bad(scale);
  for (size_t i = 0; bad != 0 && i < scales.size(); ++i) {
    const float scale = scales[i];
    if (!is_bad(scale)) continue;
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
