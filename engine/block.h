#pragma once

#include "absl/functional/function_ref.h"
#include "engine/scratch.h"
#include "engine/stage_weights.h"
#include "kernels/backend.h"
#include "model/spec.h"

namespace sauva {

// What a layer is made of, for the time it computes.
struct LayerView {
  const LayerSpec& spec;
  const LayerWeights& weights;
  KvCache* cache = nullptr;
  int kv_group = 0;
  const RopeTable* rope = nullptr;  // where the spec has rope
};

// The one transformer block: what differs between architectures is a field of its spec.
// Thread: the step thread.
class Block {
 public:
  Block(Backend& backend, const Scratch& scratch) : backend_(backend), scratch_(scratch) {}

  // Runs one layer over the residual stream x [tokens, hidden], in place.
  void Forward(const LayerView& layer, Rows x);

 private:
  using Sublayer = absl::FunctionRef<void(Rows in, Rows out)>;

  void Residual(const LayerView& layer, const SublayerNorms& norms, Rows x, Sublayer f);
  void Attention(const LayerView& layer, Rows in, Rows out);
  void FeedForward(const LayerView& layer, Rows in, Rows out);
  void Normalize(const NormSpec& spec, const NormVectors& vectors, Rows in, Rows out);
  void Apply(const Linear& linear, Rows in, Rows out);

  Backend& backend_;
  const Scratch& scratch_;
};

// out = norm(in), row by row; also the model's final norm.
void NormalizeRows(Backend& backend, const NormSpec& spec, const NormVectors& vectors, Rows in,
                   Rows out);

}  // namespace sauva
