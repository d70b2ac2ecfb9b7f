#pragma once

#include "kernels/cuda/float_matmul.h"
#include "kernels/cuda/views.h"
#include "kernels/cuda/weight_layout.h"

// Matrices of f16 and bf16 on matrix units: the fast mode. Activations are rounded to the
// weight's type, products are added up in f32 by the units themselves. The order along K is
// that of the stored row for any number of tokens and any tile, so a row's answer depends on
// nothing but the row.
namespace sauva::cuda {

// What a GPU multiplies such matrices with, by compute capability.
enum class MatrixUnits {
  kNone,
  kF16,         // 7.5: 16 x 8 x 8, of f16 alone; nothing is copied asynchronously
  kF16AndBF16,  // from 8.0 on
};
constexpr MatrixUnits MatrixUnitsOf(int compute_capability) {
  if (compute_capability < 75) return MatrixUnits::kNone;
  return compute_capability < 80 ? MatrixUnits::kF16 : MatrixUnits::kF16AndBF16;
}
constexpr bool CanMultiply(MatrixUnits units, DType dtype) {
  return (dtype == DType::kF16 && units != MatrixUnits::kNone) ||
         (dtype == DType::kBF16 && units == MatrixUnits::kF16AndBF16);
}

// Activations as f16 or bf16, in the order in which a weight's row is stored.
struct HalfRows {
  uint16_t* elements = nullptr;  // [tokens, FloatChunks * 64]
  float* scales = nullptr;       // [tokens]: what a row is to be multiplied by, a power of two
};
constexpr int64_t HalfElementBytes(int64_t tokens, int64_t columns) {
  return tokens * FloatChunks(columns) * kFloatChunk * 2;
}

// Rounds to nearest even. A row of f16 is first scaled so that its largest magnitude is in
// [2^14, 2^15), or lower where that takes more than a factor of 2^100: nothing overflows, and
// what is a 2^-29th of the largest keeps 11 bits.
struct RoundRowsLaunch {
  RowsView x;
  DType dtype = DType::kF16;  // or kBF16
  HalfRows out;
};
void LaunchRoundRows(const RoundRowsLaunch& args, void* stream);

struct HalfMatMulLaunch {
  FloatMatrix weight;  // kF16 or kBF16
  MatrixUnits units = MatrixUnits::kNone;
  HalfRows x;
  int tokens = 0;
  const float* bias = nullptr;  // [rows] or null
  RowsView out;                 // [tokens, rows]
};
void LaunchHalfMatMul(const HalfMatMulLaunch& args, void* stream);

}  // namespace sauva::cuda
