#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

// The one description of a quantized matrix: what readers of published checkpoints make,
// what quantizers make and writers publish, and what every backend repacks for its kernels.
// It lives for the time one matrix is loaded or written; plainness before size.
namespace sauva {

enum class CodeKind : uint8_t {
  kInteger,  // w = (code - zero) * scale
  kNf4,      // w = kNf4Values[code] * scale
};

// How activations meet the codes. Each is decided per row, so a batch changes no answer.
enum class ActivationKind : uint8_t {
  kInt8Groups,  // int8, one scale per token and activation group: the default
  kInt8Static,  // int8, the matrix's one calibrated scale
  kLlmInt8,     // int8, one scale per token; columns with |x| >= threshold stay in float
};

struct QuantizedMatrix {
  CodeKind kind = CodeKind::kInteger;
  int bits = 4;            // of a code: 3, 4 or 8
  int64_t rows = 0;        // outputs
  int64_t columns = 0;     // inputs
  int64_t group_size = 0;  // columns of one row that share a scale; the last group may be shorter

  std::vector<uint8_t> codes;  // [rows, columns], one code per byte
  std::vector<float> scales;   // [rows, groups]
  std::vector<uint8_t> zeros;  // [rows, groups]; kInteger only, 0..2^bits. Signed int8: 128

  // Act-order: code column i multiplies input column column_order[i], a permutation of
  // [0, columns). Empty: the columns as they are.
  std::vector<int32_t> column_order;

  ActivationKind activation = ActivationKind::kInt8Groups;
  float activation_scale = 0;   // kInt8Static: an input of 127 * scale has code 127
  float outlier_threshold = 0;  // kLlmInt8: 6.0 as published

  int64_t groups() const { return (columns + group_size - 1) / group_size; }
};

// How many columns of a token share an int8 scale, the last of them perhaps fewer: the largest
// of 128, 64 and 32 that divides the matrix's groups, 128 where a group is a whole row.
int64_t ActivationGroup(const QuantizedMatrix& matrix);

// The part that needs no codes: rows, columns, bits and group size.
absl::Status ValidateQuantizedShape(const std::string& name, const QuantizedMatrix& matrix);

// Whether sizes, codes, scales, zeros and the column order are as described above, and the
// group size is a multiple of 32 or the whole row.
// Errors: INVALID_ARGUMENT naming the tensor, where in it, the limit and the value found.
absl::Status ValidateQuantizedMatrix(const std::string& name, const QuantizedMatrix& matrix);

// The weight of one code of a validated matrix, in f32. Code columns, not input columns.
float Dequantize(const QuantizedMatrix& matrix, int64_t row, int64_t code_column);

// The code of "NormalFloat" 4 (QLoRA, Dettmers et al. 2023, appendix E), as f32.
constexpr float kNf4Values[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

}  // namespace sauva
