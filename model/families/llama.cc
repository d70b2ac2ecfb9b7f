#include <cmath>
#include <map>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/families/family.h"
#include "model/tensor_names.h"

namespace sauva {
namespace {

// Of RoPE's scaling factors; real ones are below 100.
constexpr double kMaxFactor = 1e6;

absl::StatusOr<Activation> ReadActivation(const ConfigReader& config) {
  static const auto* const kByName = new std::map<std::string, Activation>{
      {"silu", Activation::kSilu}, {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu}, {"gelu_new", Activation::kGeluTanh},
      {"relu", Activation::kRelu}, {"gelu_pytorch_tanh", Activation::kGeluTanh},
  };
  ASSIGN_OR_RETURN(const std::string name, config.String("hidden_act", "silu"));
  const auto found = kByName->find(name);
  if (found != kByName->end()) return found->second;
  return config.Unexpected("hidden_act", "silu, gelu, gelu_new, gelu_pytorch_tanh or relu");
}

absl::StatusOr<RopeLlama3Scaling> ReadLlama3Scaling(const ConfigReader& scaling) {
  RopeLlama3Scaling llama3;
  ASSIGN_OR_RETURN(llama3.factor, scaling.Number("factor", {1, kMaxFactor}));
  ASSIGN_OR_RETURN(llama3.low_freq_factor, scaling.Number("low_freq_factor", {1e-3, kMaxFactor}));
  ASSIGN_OR_RETURN(llama3.high_freq_factor, scaling.Number("high_freq_factor", {1e-3, kMaxFactor}));
  ASSIGN_OR_RETURN(llama3.original_max_position,
                   scaling.Integer("original_max_position_embeddings", {1, kMaxContext}));
  if (llama3.high_freq_factor <= llama3.low_freq_factor) {
    return scaling.Unexpected("high_freq_factor",
                              absl::StrCat("more than low_freq_factor ", llama3.low_freq_factor));
  }
  return llama3;
}

absl::Status ReadScaling(const ConfigReader& scaling, RopeSpec& rope) {
  const std::string key = scaling.Has("rope_type") ? "rope_type" : "type";
  ASSIGN_OR_RETURN(const std::string type, scaling.String(key, "default"));
  if (type == "default") return absl::OkStatus();
  if (type == "linear") {
    ASSIGN_OR_RETURN(rope.linear_factor, scaling.Number("factor", {1, kMaxFactor}));
    return absl::OkStatus();
  }
  if (type == "llama3") {
    ASSIGN_OR_RETURN(rope.llama3, ReadLlama3Scaling(scaling));
    return absl::OkStatus();
  }
  return scaling.Unexpected(key, "default, linear or llama3");
}

absl::StatusOr<RopeSpec> ReadRope(const ConfigReader& config, int head_dim) {
  RopeSpec rope;
  ASSIGN_OR_RETURN(const auto parameters, config.Object("rope_parameters"));
  ASSIGN_OR_RETURN(const auto scaling, config.Object("rope_scaling"));
  // transformers 5 writes theta, the partial factor and the scaling into one object.
  const auto has_nested = [&](const char* key) { return parameters && parameters->Has(key); };
  const ConfigReader& theta_home = has_nested("rope_theta") ? *parameters : config;
  ASSIGN_OR_RETURN(rope.theta, theta_home.Number("rope_theta", {1, 1e12}, 10000.0f));
  const ConfigReader& partial_home = has_nested("partial_rotary_factor") ? *parameters : config;
  ASSIGN_OR_RETURN(const float partial,
                   partial_home.Number("partial_rotary_factor", {0.001, 1}, 1.0f));
  rope.rotary_dims = static_cast<int>(static_cast<float>(head_dim) * partial);
  if (rope.rotary_dims < 2 || rope.rotary_dims % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: head_dim ", head_dim, " with partial_rotary_factor ", partial,
                     " gives ", rope.rotary_dims, " rotary dims, expected an even number"));
  }
  if (parameters) {
    RETURN_IF_ERROR(ReadScaling(*parameters, rope));
  } else if (scaling) {
    RETURN_IF_ERROR(ReadScaling(*scaling, rope));
  }
  return rope;
}

absl::StatusOr<AttentionSpec> ReadAttention(const ConfigReader& config, int hidden_size,
                                            const std::string& architecture) {
  AttentionSpec attention;
  ASSIGN_OR_RETURN(attention.num_heads, config.Integer("num_attention_heads", {1, kMaxHeads}));
  ASSIGN_OR_RETURN(attention.num_kv_heads,
                   config.Integer("num_key_value_heads", {1, kMaxHeads}, attention.num_heads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return config.Unexpected(
        "num_key_value_heads",
        absl::StrCat("a divisor of num_attention_heads ", attention.num_heads));
  }
  if (!config.Has("head_dim") && hidden_size % attention.num_heads != 0) {
    return config.Unexpected(
        "num_attention_heads",
        absl::StrCat("a divisor of hidden_size ", hidden_size, ", as there is no head_dim"));
  }
  ASSIGN_OR_RETURN(attention.head_dim,
                   config.Integer("head_dim", {1, kMaxHeadDim}, hidden_size / attention.num_heads));
  if (attention.head_dim < 1 || attention.head_dim > kMaxHeadDim) {
    return config.Unexpected("hidden_size", absl::StrCat("num_attention_heads times a head_dim of "
                                                         "1 to ",
                                                         kMaxHeadDim));
  }
  ASSIGN_OR_RETURN(attention.rope, ReadRope(config, attention.head_dim));
  ASSIGN_OR_RETURN(const bool bias, config.Boolean("attention_bias", false));
  attention.qkv_bias = bias || architecture == "Qwen2ForCausalLM";
  attention.out_bias = bias;
  attention.score_scale = 1.0f / std::sqrt(static_cast<float>(attention.head_dim));
  return attention;
}

// Sliding windows are refused, not ignored: answers beyond the window would be wrong.
absl::Status RefuseWindow(const ConfigReader& config, const std::string& architecture,
                          int max_context) {
  if (architecture == "LlamaForCausalLM") return absl::OkStatus();
  if (architecture == "Qwen2ForCausalLM") {
    ASSIGN_OR_RETURN(const bool windowed, config.Boolean("use_sliding_window", false));
    if (windowed) return config.Unexpected("use_sliding_window", "false");
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const int window,
                   config.Integer("sliding_window", {1, kMaxContext}, max_context));
  if (window >= max_context) return absl::OkStatus();
  return config.Unexpected(
      "sliding_window", absl::StrCat("null, or at least the context of ", max_context, " tokens"));
}

absl::StatusOr<ModelSpec> ReadSpec(const ConfigReader& config, const std::string& architecture) {
  ModelSpec spec;
  spec.family = architecture;
  ASSIGN_OR_RETURN(spec.vocab_size, config.Integer("vocab_size", {1, kMaxVocabSize}));
  ASSIGN_OR_RETURN(spec.hidden_size, config.Integer("hidden_size", {1, kMaxHiddenSize}));
  ASSIGN_OR_RETURN(spec.max_context, config.Integer("max_position_embeddings", {1, kMaxContext}));
  ASSIGN_OR_RETURN(spec.tied_head, config.Boolean("tie_word_embeddings", false));
  RETURN_IF_ERROR(RefuseWindow(config, architecture, spec.max_context));

  LayerSpec layer;
  ASSIGN_OR_RETURN(layer.norm.epsilon, config.Number("rms_norm_eps", {1e-12, 1}, 1e-6f));
  ASSIGN_OR_RETURN(layer.self_attention, ReadAttention(config, spec.hidden_size, architecture));
  ASSIGN_OR_RETURN(layer.feed_forward.intermediate_size,
                   config.Integer("intermediate_size", {1, kMaxIntermediateSize}));
  ASSIGN_OR_RETURN(layer.feed_forward.activation, ReadActivation(config));
  ASSIGN_OR_RETURN(layer.feed_forward.bias, config.Boolean("mlp_bias", false));
  ASSIGN_OR_RETURN(const int num_layers, config.Integer("num_hidden_layers", {1, kMaxLayers}));
  spec.decoder.layers.assign(static_cast<size_t>(num_layers), layer);
  spec.decoder.final_norm = layer.norm;
  return spec;
}

// A module's part of "model.layers.N.MODULE.weight" by our name; bias adds ".bias".
const std::map<std::string, std::string, std::less<>>& MatrixNames() {
  static const auto* const kNames = new std::map<std::string, std::string, std::less<>>{
      {"self_attn.q_proj", "self.q"}, {"self_attn.k_proj", "self.k"},
      {"self_attn.v_proj", "self.v"}, {"self_attn.o_proj", "self.out"},
      {"mlp.gate_proj", "gate"},      {"mlp.up_proj", "up"},
      {"mlp.down_proj", "down"},
  };
  return *kNames;
}

std::optional<std::string> LayerPart(std::string_view module, std::string_view kind) {
  const bool is_weight = kind == "weight";
  if (module == "input_layernorm" && is_weight) return "attention_norm.gain";
  if (module == "post_attention_layernorm" && is_weight) return "feed_forward_norm.gain";
  const auto matrix = MatrixNames().find(module);
  if (matrix == MatrixNames().end()) return std::nullopt;
  if (is_weight) return matrix->second;
  if (kind == "bias") return matrix->second + ".bias";
  return std::nullopt;
}

std::optional<std::string> CanonicalName(std::string_view name) {
  if (name == "model.embed_tokens.weight") return tensor_names::kEmbedding;
  if (name == "model.norm.weight") return tensor_names::kFinalNormGain;
  if (name == "lm_head.weight") return tensor_names::kHead;
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  const size_t after_number = name.find('.');
  const size_t before_kind = name.rfind('.');
  if (after_number == std::string_view::npos || after_number == before_kind) return std::nullopt;
  int layer = 0;
  const std::string_view number = name.substr(0, after_number);
  // Only the plain spelling, so that "01" is not a second name for layer 1.
  if (!absl::SimpleAtoi(absl::string_view(number.data(), number.size()), &layer) ||
      number != std::to_string(layer)) {
    return std::nullopt;
  }
  const auto part = LayerPart(name.substr(after_number + 1, before_kind - after_number - 1),
                              name.substr(before_kind + 1));
  if (!part) return std::nullopt;
  return tensor_names::Layer(layer, *part);
}

}  // namespace

const Family& LlamaFamily() {
  static const auto* const kFamily = new Family{
      {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}, &ReadSpec, &CanonicalName};
  return *kFamily;
}

}  // namespace sauva
