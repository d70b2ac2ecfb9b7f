#include "kernels/reference/reference_weight.h"

#include <span>

#include "base/status_macros.h"
#include "kernels/round_to_nearest.h"
#include "kernels/weight_source.h"

namespace sauva::reference {

absl::StatusOr<std::unique_ptr<ReferenceWeight>> ReferenceWeight::Create(const WeightSource& source,
                                                                         WeightFormat format) {
  RETURN_IF_ERROR(ValidateWeightSource(source));
  auto weight = std::unique_ptr<ReferenceWeight>(new ReferenceWeight(source.rows, source.columns));
  if (source.quantized != nullptr) {
    weight->quantized_ = *source.quantized;
    return weight;
  }
  if (format == WeightFormat::kInt8) {
    ASSIGN_OR_RETURN(weight->quantized_, RoundToInt8(source));
    return weight;
  }
  const auto columns = static_cast<size_t>(source.columns);
  weight->values_.resize(static_cast<size_t>(source.rows) * columns);
  for (int64_t row = 0; row < source.rows; ++row) {
    ReadRow(source, row,
            std::span(weight->values_).subspan(static_cast<size_t>(row) * columns, columns));
  }
  return weight;
}

int64_t ReferenceWeight::size_bytes() const {
  if (!quantized_) return static_cast<int64_t>(values_.size() * sizeof(float));
  return static_cast<int64_t>(quantized_->codes.size() + quantized_->zeros.size() +
                              quantized_->scales.size() * sizeof(float));
}

}  // namespace sauva::reference
