#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sauva::reference {

// A weight as rows of numbers: f32 values, or int8 codes with a scale per row.
class ReferenceWeight : public Weight {
 public:
  // Errors: INVALID_ARGUMENT naming the tensor.
  static absl::StatusOr<std::unique_ptr<ReferenceWeight>> Create(const WeightSource& source,
                                                                 WeightFormat format);

  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t size_bytes() const override {
    return static_cast<int64_t>(values_.size() * sizeof(float) + codes_.size() +
                                scales_.size() * sizeof(float));
  }

  bool is_int8() const { return !codes_.empty(); }
  const float* values(int64_t row) const { return values_.data() + row * columns_; }
  const int8_t* codes(int64_t row) const { return codes_.data() + row * columns_; }
  float scale(int64_t row) const { return scales_[static_cast<size_t>(row)]; }

 private:
  ReferenceWeight(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {}

  const int64_t rows_;
  const int64_t columns_;
  std::vector<float> values_;  // [rows, columns], native formats
  std::vector<int8_t> codes_;  // [rows, columns], int8
  std::vector<float> scales_;  // [rows], int8
};

}  // namespace sauva::reference
