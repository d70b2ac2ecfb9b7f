#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_sampler.h"
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/cuda_weight.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/half_matmul.h"
#include "kernels/cuda/quantized_rows.h"
#include "kernels/cuda/step_graphs.h"
#include "kernels/cuda_access.h"

namespace sauva::cuda {

// The ops as kernels queued on one stream of one GPU, in the order of the numerics contract:
// a sum is added up as on the host, whatever the tile; but for matrices of f16 and bf16 in fast
// arithmetic (half_matmul.h), whose backend class is another. Only Sample and the copies to the
// host wait for the device. Parts of decode steps are recorded and replayed (step_graphs.h).
// Thread: one step thread.
class CudaBackend : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, const CudaOptions& options);

  std::string backend_class() const override;
  int64_t used_bytes() const override { return device_->used_bytes(); }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                        WeightFormat format) override;
  int load_threads() const override;
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) override;
  absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) override;
  absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) override;

  void UploadStep(const StepTable& step) override { step_.Upload(step); }
  void RunPart(StepPart part, int rows, absl::FunctionRef<void(int n)> ops) override;
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
  void Wait() override;

 private:
  // What matrices of codes need beside them, once there are such and limits are known.
  absl::Status ReserveQuantized();
  // The same for matrices on matrix units.
  absl::Status ReserveHalves();
  bool OnMatrixUnits(const CudaWeight& weight) const;
  void MatMulOnUnits(const CudaWeight& weight, const MatMulArgs& args);

  const std::unique_ptr<Device> device_;
  const CudaOptions options_;
  const MatrixUnits units_;  // that may be used
  CudaStep step_;
  int64_t max_columns_ = 0;
  std::mutex preparing_;       // of the three that follow and of what is reserved for them
  bool any_codes_ = false;     // some weight is of codes
  bool any_outliers_ = false;  // some weight leaves columns in float
  bool any_halves_ = false;    // some weight is multiplied on matrix units
  DeviceMemory codes_, facts_, outliers_, num_outliers_;
  QuantizedRows quantized_;  // of the matmul being queued
  DeviceMemory half_elements_, half_scales_;
  DeviceMemory partials_;  // of attention
  CudaSampler sampler_;
  StepGraphs graphs_;
};

}  // namespace sauva::cuda
