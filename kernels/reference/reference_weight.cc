#include "kernels/reference/reference_weight.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/weight_source.h"

namespace sauva::reference {

absl::StatusOr<std::unique_ptr<ReferenceWeight>> ReferenceWeight::Create(const WeightSource& source,
                                                                         WeightFormat format) {
  RETURN_IF_ERROR(ValidateWeightSource(source));
  auto weight = std::unique_ptr<ReferenceWeight>(new ReferenceWeight(source.rows, source.columns));
  const auto elements = static_cast<size_t>(source.rows * source.columns);
  const auto columns = static_cast<size_t>(source.columns);
  if (format == WeightFormat::kNative) {
    weight->values_.resize(elements);
    for (int64_t row = 0; row < source.rows; ++row) {
      ReadRow(source, row,
              std::span(weight->values_).subspan(static_cast<size_t>(row) * columns, columns));
    }
    return weight;
  }
  weight->codes_.resize(elements);
  weight->scales_.resize(static_cast<size_t>(source.rows));
  RETURN_IF_ERROR(
      ForEachInt8Row(source, [&](int64_t row, std::span<const int8_t> codes, float scale) {
        std::copy(codes.begin(), codes.end(), weight->codes_.begin() + row * source.columns);
        weight->scales_[static_cast<size_t>(row)] = scale;
      }));
  return weight;
}

}  // namespace sauva::reference
