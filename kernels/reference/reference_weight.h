#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/quantized_matrix.h"

namespace sauva::reference {

// A weight as rows of f32 numbers, or as a quantized matrix.
class ReferenceWeight : public Weight {
 public:
  // Errors: INVALID_ARGUMENT naming the tensor.
  static absl::StatusOr<std::unique_ptr<ReferenceWeight>> Create(const WeightSource& source,
                                                                 WeightFormat format);

  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t size_bytes() const override;

  const std::optional<QuantizedMatrix>& quantized() const { return quantized_; }
  const float* values(int64_t row) const { return values_.data() + row * columns_; }

 private:
  ReferenceWeight(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {}

  const int64_t rows_;
  const int64_t columns_;
  std::vector<float> values_;  // [rows, columns], or empty
  std::optional<QuantizedMatrix> quantized_;
};

}  // namespace sauva::reference
