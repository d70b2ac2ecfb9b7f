#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "kernels/backend.h"

namespace sauva {

// A host backend that computes with another one and shows each matrix product to an
// observer: how calibration and evaluation see what flows inside a stage.
// Thread: as the backend within.
class TappedBackend : public Backend {
 public:
  // Called after each product; `name` is that of the weight's source.
  using Observer = std::function<void(const std::string& name, const MatMulArgs& args)>;

  // What is done with the residual stream after a step's first sublayer, x.
  enum class Middle {
    kIgnore,
    kShow,    // at_middle(x) sees it
    kReplace  // at_middle(x) writes it; products and attention before are neither computed nor
              // shown
  };

  struct Taps {
    Observer observer;  // may be empty
    // At this product, unless it is empty, a step ends: it is shown without being computed, as are
    // no products and no attention after it, so what the step leaves is undefined.
    std::string last_product;
    Middle middle = Middle::kIgnore;
    std::function<void(Rows x)> at_middle;
  };

  TappedBackend(std::unique_ptr<Backend> backend, Taps taps)
      : backend_(std::move(backend)), taps_(std::move(taps)) {}

  std::string backend_class() const override { return backend_->backend_class(); }
  int64_t reserved_bytes() const override { return backend_->reserved_bytes(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return backend_->Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                        WeightFormat format) override;
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) override {
    return backend_->AllocateKv(shape);
  }
  absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) override {
    return backend_->MakeRopeTable(shape);
  }
  absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) override {
    return backend_->Reserve(limits, max_columns, vocab_size);
  }
  void UploadStep(const StepTable& step) override {
    phase_ = taps_.middle == Middle::kReplace ? Phase::kSkipped : Phase::kFirstSublayer;
    backend_->UploadStep(step);
  }
  void GatherRows(const Weight& table, float scale, Rows out) override {
    backend_->GatherRows(table, scale, out);
  }
  void SelectSampledRows(Rows x, Rows out) override { backend_->SelectSampledRows(x, out); }
  void Norm(const NormArgs& args) override { backend_->Norm(args); }
  void MatMul(const MatMulArgs& args) override;
  void Rope(const RopeArgs& args) override { backend_->Rope(args); }
  void WriteKv(const WriteKvArgs& args) override { backend_->WriteKv(args); }
  void Attention(const AttentionArgs& args) override {
    if (computes()) backend_->Attention(args);
  }
  void Activate(const ActivationArgs& args) override { backend_->Activate(args); }
  void Add(Rows x, Rows y) override;
  void Sample(Rows logits, std::span<const SampleRow> rows,
              std::span<SampleResult> results) override {
    backend_->Sample(logits, rows, results);
  }
  void CopyToHost(Rows from, float* to) override { backend_->CopyToHost(from, to); }
  void CopyFromHost(const float* from, Rows to) override { backend_->CopyFromHost(from, to); }
  void Wait() override { backend_->Wait(); }

 private:
  // Of the step at hand.
  enum class Phase { kSkipped, kFirstSublayer, kAfterMiddle, kEnded };
  bool computes() const { return phase_ != Phase::kSkipped && phase_ != Phase::kEnded; }

  std::unique_ptr<Backend> backend_;
  const Taps taps_;
  Phase phase_ = Phase::kFirstSublayer;
  std::unordered_map<const Weight*, std::string> names_;
};

}  // namespace sauva
