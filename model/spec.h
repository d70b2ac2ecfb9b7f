#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// What a model is, as values. One forward pass serves every architecture: a family file
// reads config.json into these structs and nothing else knows the family's name.
namespace sauva {

enum class NormKind { kRmsNorm, kLayerNorm };

// Where a sublayer f is normalised, x being the residual stream.
enum class NormPlacement {
  kPre,       // x + f(norm(x))               Llama, Mistral, Qwen, GPT-2, T5
  kPost,      // norm(x + f(x))               BERT
  kSandwich,  // x + norm_out(f(norm_in(x)))  Gemma 2 and 3
};

enum class RopeLayout { kHalves, kInterleaved };
enum class Activation { kSilu, kGelu, kGeluTanh, kRelu };

struct NormSpec {
  NormKind kind = NormKind::kRmsNorm;
  float epsilon = 1e-5f;
  bool bias = false;
};

// Llama 3's stretching of slow frequencies. Source: transformers, "llama3" rope type.
struct RopeLlama3Scaling {
  float factor = 8;
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  int original_max_position = 8192;
};

struct RopeSpec {
  float theta = 10000;
  int rotary_dims = 0;  // leading dims of a head that turn; the rest pass through
  RopeLayout layout = RopeLayout::kHalves;
  float linear_factor = 1;  // positions are divided by it
  std::optional<RopeLlama3Scaling> llama3;
};

struct AttentionSpec {
  int num_heads = 0;
  int num_kv_heads = 0;  // < num_heads for grouped-query attention
  int head_dim = 0;
  bool causal = true;
  int window = 0;  // keys at most this far back, the token itself counted; 0: all
  std::optional<RopeSpec> rope;
  bool qkv_bias = false;
  bool out_bias = false;
  float score_scale = 0;  // multiplies q.k
};

struct FeedForwardSpec {
  int intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool gated = true;  // down(act(gate(x)) * up(x)) instead of down(act(up(x)))
  bool bias = false;
};

struct LayerSpec {
  NormSpec norm;
  NormPlacement placement = NormPlacement::kPre;
  AttentionSpec self_attention;
  FeedForwardSpec feed_forward;
};

struct StackSpec {
  std::vector<LayerSpec> layers;  // a window on every second layer is data
  NormSpec final_norm;
};

struct ModelSpec {
  std::string family;  // for people and logs; no code branches on it
  int vocab_size = 0;
  int hidden_size = 0;
  int max_context = 0;  // tokens
  bool tied_head = false;
  float embedding_scale = 1;
  StackSpec decoder;
  std::vector<int32_t> eos_tokens;
  std::optional<int32_t> bos_token;

  int num_layers() const { return static_cast<int>(decoder.layers.size()); }
};

}  // namespace sauva
