#pragma once

#include <string>

// Canonical tensor names: what the engine asks a Checkpoint for, whatever the family
// called it. Shapes are [out, in] for matrices, row-major.
namespace sauva::tensor_names {

inline const std::string kEmbedding = "embedding";            // [vocab_size, hidden_size]
inline const std::string kFinalNormGain = "final_norm.gain";  // [hidden_size]
inline const std::string kFinalNormBias = "final_norm.bias";  // [hidden_size]; LayerNorm only
inline const std::string kHead = "head";  // [vocab_size, hidden_size]; absent when tied

// "layers.N.PART" with PART one of
//   attention_norm.gain, attention_norm.bias, feed_forward_norm.gain, feed_forward_norm.bias   [hidden]
//   self.q [heads*head_dim, hidden], self.k, self.v [kv_heads*head_dim, hidden], self.out [hidden, heads*head_dim]
//   gate, up [intermediate, hidden], down [hidden, intermediate]; each with ".bias" [out] where the spec says so
inline std::string Layer(int layer, const std::string& part) {
  return "layers." + std::to_string(layer) + "." + part;
}

}  // namespace sauva::tensor_names
