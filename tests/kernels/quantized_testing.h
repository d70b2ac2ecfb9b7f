#pragma once

#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/quantized_matrix.h"

// Random quantized matrices for tests.
namespace sauva::testing {

struct QuantizedCase {
  CodeKind kind = CodeKind::kInteger;
  int bits = 4;
  int rows = 16;
  int columns = 64;
  int group_size = 32;
  bool half_scales = true;
  bool symmetric = false;  // every zero point is the middle code
  ActivationKind activation = ActivationKind::kInt8Groups;
  bool column_order = false;
};

// 3, 4 and 8 bits and NF4, each with one scale per 32 or 64 columns and per row.
std::vector<QuantizedCase> EveryCodeKind();

// Random codes, scales, zero points and order; the outlier threshold is 2.5.
QuantizedMatrix RandomQuantized(const QuantizedCase& c);

// `matrix` as the source "test.weight"; it must outlive the source.
WeightSource SourceOf(const QuantizedMatrix& matrix);

std::string Describe(const QuantizedCase& c);

}  // namespace sauva::testing
