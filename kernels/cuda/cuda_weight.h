#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/code_matmul.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/float_matmul.h"
#include "kernels/quantized_matrix.h"

namespace sauva::cuda {

// How the activations of a matrix of codes are rounded.
struct ActivationRounding {
  Rounding rounding = Rounding::kGroups;
  float static_scale = 0;
  float outlier_threshold = 0;
  const int32_t* column_order = nullptr;  // device memory, or null
};

// A matrix in device memory: numbers as they were stored, or codes.
class CudaWeight : public Weight {
 public:
  // Copies and repacks a few tiles at a time; returns when the copy is done.
  // Errors: INVALID_ARGUMENT naming the tensor; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<CudaWeight>> Create(Device& device,
                                                            const WeightSource& source,
                                                            WeightFormat format);

  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t size_bytes() const override;

  bool is_codes() const { return is_codes_; }
  FloatMatrix floats() const;  // when not codes
  const CodeMatrix& codes() const { return codes_; }
  const ActivationRounding& activation() const { return activation_; }

 private:
  CudaWeight(int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {}

  absl::Status UploadFloats(Device& device, const WeightSource& source);
  absl::Status UploadCodes(Device& device, const QuantizedMatrix& matrix);
  absl::Status UploadScales(Device& device, const QuantizedMatrix& matrix);
  absl::Status UploadZeros(Device& device, const QuantizedMatrix& matrix);
  absl::Status UploadColumnOrder(Device& device, const QuantizedMatrix& matrix);

  const int64_t rows_;
  const int64_t columns_;
  bool is_codes_ = false;
  DType dtype_ = DType::kF32;
  CodeMatrix codes_;
  ActivationRounding activation_;
  DeviceMemory elements_;  // numbers or codes
  DeviceMemory high_, scales_, zeros_, column_order_;
};

}  // namespace sauva::cuda
