#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/cuda_weight.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/quantized_rows.h"

namespace sauva::cuda {

// The ops as kernels queued on one stream of one GPU, in the order of the numerics contract:
// a sum is added up as on the host, whatever the tile. Only Sample and the copies to the host
// wait for the device: for token ids where every row takes its likeliest one, else for the
// logits, from which the host's sampler draws.
// Thread: one step thread.
class CudaBackend : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Device> device);

  std::string backend_class() const override;
  int64_t used_bytes() const override { return device_->used_bytes(); }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                        WeightFormat format) override;
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) override;
  absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) override;
  absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) override;

  void UploadStep(const StepTable& step) override { step_.Upload(step); }
  void GatherRows(const Weight& table, float scale, Rows out) override;
  void SelectSampledRows(Rows x, Rows out) override;
  void Norm(const NormArgs& args) override;
  void MatMul(const MatMulArgs& args) override;
  void Rope(const RopeArgs& args) override;
  void WriteKv(const WriteKvArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void Activate(const ActivationArgs& args) override;
  void Add(Rows x, Rows y) override;
  void Sample(Rows logits, std::span<const SampleRow> rows,
              std::span<SampleResult> results) override;
  void CopyToHost(Rows from, float* to) override;
  void CopyFromHost(const float* from, Rows to) override;

 private:
  // Errors: RESOURCE_EXHAUSTED.
  absl::Status ReserveSampling(int max_sequences, int vocab_size);
  // What matrices of codes need beside them, once there are such and limits are known.
  absl::Status ReserveQuantized();

  const std::unique_ptr<Device> device_;
  CudaStep step_;
  int64_t max_columns_ = 0;
  bool any_codes_ = false;     // some weight is of codes
  bool any_outliers_ = false;  // some weight leaves columns in float
  DeviceMemory codes_, facts_, outliers_, num_outliers_;
  QuantizedRows quantized_;  // of the matmul being queued
  DeviceMemory partials_;    // of attention
  PinnedMemory logits_;      // [max_sequences, vocab_size]
  DeviceMemory likeliest_;   // [max_sequences]
  PinnedMemory tokens_;      // the same on the host
  std::optional<SampleScratch> sample_scratch_;
};

}  // namespace sauva::cuda
