#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/tapped_backend.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "model/tokenizer.h"
#include "proto/generation.h"
#include "quantize/activation_store.h"

namespace sauva {

// A checkpoint with some matrices of its own in the place of another's.
class OverlaidCheckpoint : public Checkpoint {
 public:
  explicit OverlaidCheckpoint(const Checkpoint& base) : base_(base) {}

  // `matrix` outlives this object.
  void Overlay(const std::string& name, const QuantizedMatrix* matrix) { matrices_[name] = matrix; }

  absl::StatusOr<StoredTensor> Find(const std::string& name) const override {
    return base_.Find(name);
  }
  std::optional<QuantizedOutline> FindQuantized(const std::string& name) const override;
  absl::StatusOr<QuantizedMatrix> ReadQuantized(const std::string& name,
                                                std::vector<uint8_t> codes) const override;
  std::vector<std::string> Names() const override { return base_.Names(); }

 private:
  const Checkpoint& base_;
  std::map<std::string, const QuantizedMatrix*> matrices_;
};

// The calibration samples and where they have got to.
struct CalibrationState {
  const ModelSpec& spec;
  const std::vector<std::vector<TokenId>>& samples;
  ActivationStore hidden;  // before the layer of the next pass; layer 0 takes the tokens
  std::optional<ActivationStore> middle;  // after that layer's attention; gptq only
  int threads = 0;
};

// Runs one layer over every sample, alone in memory, in f32: quantized matrices of the
// checkpoint become numbers.
struct LayerPass {
  int layer = 0;
  const Checkpoint& checkpoint;
  TappedBackend::Observer observer;  // may be empty
  std::string last_product;          // kDiscard: nothing after it is computed; empty: all
  enum class Output { kDiscard, kKeep } output = Output::kDiscard;  // kKeep: moves the samples on
  // kShow: what the attention leaves goes to state.middle; kReplace: is taken from there.
  TappedBackend::Middle middle = TappedBackend::Middle::kIgnore;
};
absl::Status RunLayer(CalibrationState& state, const LayerPass& pass);

}  // namespace sauva
