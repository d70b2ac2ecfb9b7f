#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/stage.h"
#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/spec.h"

namespace sauva {

struct Linear {
  std::unique_ptr<Weight> weight;  // [out, in]
  std::span<const float> bias;     // [out], or empty
};

struct NormVectors {
  std::span<const float> gain;  // [hidden]
  std::span<const float> bias;  // [hidden], or empty
};

struct SublayerNorms {
  NormVectors in;
  NormVectors out;  // sandwich placement only
};

struct LayerWeights {
  SublayerNorms attention_norm;
  Linear q;    // [heads * head_dim, hidden]
  Linear k;    // [kv_heads * head_dim, hidden]
  Linear v;    // [kv_heads * head_dim, hidden]
  Linear out;  // [hidden, heads * head_dim]
  SublayerNorms feed_forward_norm;
  Linear gate;  // [intermediate, hidden]; gated only
  Linear up;    // [intermediate, hidden]
  Linear down;  // [hidden, intermediate]
};

// The weights of one stage, all resident.
class StageWeights {
 public:
  // Reads and prepares what the stage needs and nothing else; every shape is checked before
  // a byte is used. `progress` is told the layers loaded so far and may be empty.
  // Errors: NOT_FOUND or INVALID_ARGUMENT naming the tensor, expected and found.
  static absl::StatusOr<StageWeights> Load(Backend& backend, const ModelSpec& spec,
                                           const Checkpoint& checkpoint,
                                           const StageOptions& options,
                                           const std::function<void(int)>& progress);

  // The weights of a layer, numbered within the model, for as long as it computes.
  const LayerWeights& Lease(int layer) const {
    return layers_[static_cast<size_t>(layer - first_layer_)];
  }

  const Weight& embedding() const { return *embedding_; }        // first stage
  const NormVectors& final_norm() const { return final_norm_; }  // last stage
  const Weight& head() const { return head_ ? *head_ : *embedding_; }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  friend class StageWeightsLoader;
  StageWeights() = default;

  int first_layer_ = 0;
  std::vector<LayerWeights> layers_;
  std::unique_ptr<Weight> embedding_;
  NormVectors final_norm_;
  std::unique_ptr<Weight> head_;  // empty when the embedding serves as the head
  std::vector<std::unique_ptr<Buffer>> vectors_;
  int64_t size_bytes_ = 0;
};

}  // namespace sauva
