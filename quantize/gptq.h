#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quantized_matrix.h"

namespace sauva {

// The second moments of a matrix's inputs: the sum of x xT over calibration tokens.
class Hessian {
 public:
  explicit Hessian(int64_t columns);

  // Adds tokens: rows of `columns` floats, `stride` floats apart. `columns` is a multiple of 16.
  struct Inputs {
    const float* data = nullptr;
    int64_t rows = 0;
    int64_t stride = 0;
  };
  void Add(const Inputs& inputs, int threads);
  int64_t tokens() const { return tokens_; }

 private:
  friend class GptqFactor;
  int64_t columns_;
  int64_t tokens_ = 0;
  std::vector<float> lower_;          // triangle, [columns, columns]
  std::vector<float> columns_first_;  // the tokens that are being added
};

struct GptqOptions {
  int bits = 4;
  int64_t group_size = 128;
  bool act_order = false;
  bool symmetric = true;
  float damping = 0.01f;
  int threads = 0;
};

// What all matrices with the same inputs share: the order in which columns are rounded and the
// upper Cholesky factor of the damped Hessian's inverse.
class GptqFactor {
 public:
  // Damping is raised tenfold up to 3 times while the matrix is not positive definite;
  // `note` then says so. Takes the Hessian's memory.
  // Errors: INVALID_ARGUMENT when it never becomes so, naming the last damping.
  static absl::StatusOr<GptqFactor> Create(Hessian hessian, const GptqOptions& options,
                                           std::string& note);

  // By falling Hessian diagonal; without act-order groups by falling sum of it and columns
  // within their group, which the format does not see.
  const std::vector<int32_t>& order() const { return order_; }
  bool dead(int64_t column) const { return dead_[static_cast<size_t>(column)]; }
  // [columns, columns], row-major. Numbering columns from the last in `order`, element [j, i],
  // j <= i, is what the error of column i, taken once over [i, i], adds to column j.
  const std::vector<float>& inverse() const { return inverse_; }

 private:
  GptqFactor() = default;
  std::vector<int32_t> order_;
  std::vector<bool> dead_;  // inputs that were never other than zero
  std::vector<float> inverse_;
};

// Quantizes a matrix [rows, columns] column by column, each column's error made good by
// those that follow, as far as the inputs allow. Scales are of f16 as they are published;
// zero points are 1 or more, since version 1 of the format cannot hold 0.
// Errors: INVALID_ARGUMENT naming row and column of a number that is not finite.
// Source: Frantar et al. 2022, algorithm 1; AutoGPTQ, quantization/gptq.py, fasterquant.
absl::StatusOr<QuantizedMatrix> QuantizeGptq(std::vector<float> weights, int64_t rows,
                                             const GptqFactor& factor, const GptqOptions& options);

}  // namespace sauva
