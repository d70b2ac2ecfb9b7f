#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "kernels/backend.h"
#include "kernels/step_buffer.h"

namespace sauva {

// The numerics contract written as plain loops: one thread, no layout, no cleverness. The
// other backends are tested against it for equal bits.
class ReferenceBackend : public Backend {
 public:
  std::string backend_class() const override { return "reference"; }

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
  StepBuffer step_;
  std::optional<SampleScratch> sample_scratch_;
};

}  // namespace sauva
