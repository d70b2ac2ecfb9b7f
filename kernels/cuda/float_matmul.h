#pragma once

#include "kernels/cuda/views.h"
#include "kernels/dtype.h"

// Matrices of f32, f16 and bf16, in the order of sums of the numerics contract.
namespace sauva::cuda {

struct FloatMatrix {
  const void* elements = nullptr;  // weight_layout.h
  DType dtype = DType::kF32;       // kF32, kF16 or kBF16
  int64_t rows = 0;
  int64_t columns = 0;
};

struct FloatMatMulLaunch {
  FloatMatrix weight;
  RowsView x;                   // [tokens, columns]
  const float* bias = nullptr;  // [rows] or null
  RowsView out;                 // [tokens, rows]
};
void LaunchFloatMatMul(const FloatMatMulLaunch& args, void* stream);

// out[t] = scale * weight[token_ids[t]].
struct FloatGatherLaunch {
  FloatMatrix weight;
  const int32_t* token_ids = nullptr;
  float scale = 1;
  RowsView out;
};
void LaunchFloatGather(const FloatGatherLaunch& args, void* stream);

}  // namespace sauva::cuda
