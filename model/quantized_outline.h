#pragma once

#include <cstdint>
#include <string>

#include "kernels/quantized_matrix.h"

namespace sauva {

// What is known of a quantized matrix of a checkpoint before its codes are read.
struct QuantizedOutline {
  CodeKind kind = CodeKind::kInteger;
  int bits = 4;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t group_size = 0;
  bool act_order = false;    // may have a column_order
  bool half_scales = false;  // f16 holds every scale
  bool zero_points = false;  // not all of them are the middle code
  ActivationKind activation = ActivationKind::kInt8Groups;
  int64_t stored_bytes = 0;  // of all its tensors in the checkpoint

  // "nf4 g64", "int4 g128", "int8 per row".
  std::string FormatText() const;
};

}  // namespace sauva
