#pragma once

#include "kernels/cuda/quantized_rows.h"
#include "kernels/cuda/views.h"

// Matrices of codes times activations of int8 codes. The dot product of columns whose
// activations share a scale is an exact integer, so matrix instructions compute it 32 columns
// at a time; those are added in order, so the numerics contract holds for any number of tokens.
namespace sauva::cuda {

enum class CodeFormat { kInt8, kInt4, kInt3, kNf4 };

struct CodeMatrix {
  CodeFormat format = CodeFormat::kInt8;
  int64_t rows = 0;
  int64_t columns = 0;
  const void* codes = nullptr;  // [row tiles, groups, tile]: weight_layout.h
  const void* high = nullptr;   // kInt3: [row tiles, pairs of groups, 128 bytes]
  // Of the columns that share a scale, scale_groups groups of 32:
  int scale_groups = 1;
  // Of those whose activations do, 1, 2 or 4:
  int activation_groups = 1;
  const void* scales = nullptr;  // [row tiles, weight groups, 16] f32, or f16
  bool half_scales = false;
  // What is to be taken off a code as stored; null: nothing. Int8 codes are stored less 128,
  // and so are their zeros.
  const int8_t* zeros = nullptr;  // [row tiles, weight groups, 16]

  constexpr int64_t groups() const { return QuantizedGroups(columns); }
  constexpr int64_t row_tiles() const { return (rows + 15) / 16; }
  constexpr int64_t weight_groups() const { return (groups() + scale_groups - 1) / scale_groups; }
};

struct CodeMatMulLaunch {
  CodeMatrix weight;
  QuantizedRows x;
  int tokens = 0;
  const float* bias = nullptr;  // [rows] or null
  RowsView out;                 // [tokens, rows]
};
void LaunchCodeMatMul(const CodeMatMulLaunch& args, void* stream);

// kNf4Values of kernels/quantized_matrix.h.
struct Nf4Values {
  float values[16] = {};
};

// out += what the columns left in float contribute (LLM.int8()).
struct OutlierLaunch {
  CodeMatrix weight;
  Nf4Values nf4;
  RowsView x;
  const int32_t* column_order = nullptr;
  QuantizedRows quantized;
  RowsView out;
};
void LaunchAddOutliers(const OutlierLaunch& args, void* stream);

// out[t] = scale * weight[token_ids[t]].
struct CodeGatherLaunch {
  CodeMatrix weight;
  Nf4Values nf4;
  const int32_t* column_order = nullptr;
  const int32_t* token_ids = nullptr;
  float scale = 1;
  RowsView out;
};
void LaunchCodeGather(const CodeGatherLaunch& args, void* stream);

}  // namespace sauva::cuda
