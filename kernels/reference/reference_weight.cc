#include "kernels/reference/reference_weight.h"

#include "base/status_macros.h"
#include "kernels/weight_source.h"

namespace sauva::reference {

absl::StatusOr<std::unique_ptr<ReferenceWeight>> ReferenceWeight::Create(const WeightSource& source,
                                                                         WeightFormat format) {
  RETURN_IF_ERROR(ValidateWeightSource(source));
  auto weight = std::unique_ptr<ReferenceWeight>(new ReferenceWeight(source.rows, source.columns));
  const auto elements = static_cast<size_t>(source.rows * source.columns);
  if (format == WeightFormat::kNative) {
    weight->values_.resize(elements);
    for (size_t i = 0; i < elements; ++i) {
      weight->values_[i] = ElementAsFloat(source, static_cast<int64_t>(i));
    }
    return weight;
  }
  weight->codes_.resize(elements);
  weight->scales_.resize(static_cast<size_t>(source.rows));
  const auto columns = static_cast<size_t>(source.columns);
  for (size_t row = 0; row < weight->scales_.size(); ++row) {
    RETURN_IF_ERROR(QuantizeRow(source, static_cast<int64_t>(row),
                                std::span(weight->codes_).subspan(row * columns, columns),
                                weight->scales_[row]));
  }
  return weight;
}

}  // namespace sauva::reference
