#pragma once

#include <cstdint>
#include <vector>

#include "kernels/quantized_matrix.h"

// Products with a quantized matrix, as docs/numerics.md says and as plainly as can be.
namespace sauva::reference {

// One token's activations as they meet the codes of a matrix: in the order of its columns.
struct QuantizedRow {
  std::vector<int8_t> codes;      // [columns]
  std::vector<float> scales;      // one per activation group
  std::vector<int64_t> outliers;  // columns left in float, ascending; their codes are 0
  std::vector<float> values;      // [columns], the activations themselves
};

QuantizedRow QuantizeRow(const QuantizedMatrix& matrix, const float* x);

// The sum over int8 codes of one output, and that over outliers.
float DotCodes(const QuantizedMatrix& matrix, int64_t row, const QuantizedRow& x);
float DotOutliers(const QuantizedMatrix& matrix, int64_t row, const QuantizedRow& x);

}  // namespace sauva::reference
