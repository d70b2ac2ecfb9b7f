#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/host_memory.h"
#include "kernels/quantized_matrix.h"

namespace sauva {

// A quantized matrix as the cpu kernels stream it: panels of 16 rows with scales beside
// codes, scales as f16 where f16 holds every one of them, no zero points where all are the
// middle code (kernels/cpu/kernel_table.h, PackedPanels).
class PackedMatrix {
 public:
  // Of a validated matrix. Errors: RESOURCE_EXHAUSTED with the bytes.
  static absl::StatusOr<std::unique_ptr<PackedMatrix>> Create(const QuantizedMatrix& matrix);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t size_bytes() const {
    return memory_.size_bytes() + static_cast<int64_t>(std::span(column_order_).size_bytes());
  }
  CodeFormat format() const { return format_; }
  ActivationKind activation() const { return activation_; }

  // The panels from panel `first` on.
  PackedPanels panels(int64_t first) const;
  // How a token's activations meet this matrix, without its data.
  QuantizeArgs quantize_args() const;

  // The weight of one code in f32; `column` in the order of codes.
  float Element(int64_t row, int64_t column) const;
  // The input column of a code column.
  int64_t InputColumn(int64_t column) const {
    return column_order_.empty() ? column : column_order_[static_cast<size_t>(column)];
  }

 private:
  PackedMatrix(const QuantizedMatrix& matrix, bool half_scales);
  // `halves`: the scales as f16, where they are stored so.
  void PackPanel(const QuantizedMatrix& matrix, const std::vector<uint16_t>& halves, int64_t panel);
  float ScaleAt(int64_t row, int64_t column) const;

  const int64_t rows_;
  const int64_t columns_;
  const CodeFormat format_;
  const ActivationKind activation_;
  const float activation_scale_;
  const float outlier_threshold_;
  const std::vector<int32_t> column_order_;
  PackedPanels panels_;
  HostMemory memory_;
};

}  // namespace sauva
