#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/dtype.h"
#include "model/expected_tensors.h"
#include "model/model.h"
#include "model/safetensors_header.h"

namespace sauva {
namespace {

nlohmann::json RopeJson(const RopeSpec& rope) {
  nlohmann::json json = {{"theta", rope.theta},
                         {"rotary_dims", rope.rotary_dims},
                         {"linear_factor", rope.linear_factor}};
  if (rope.llama3) {
    json["llama3"] = {{"factor", rope.llama3->factor},
                      {"low_freq_factor", rope.llama3->low_freq_factor},
                      {"high_freq_factor", rope.llama3->high_freq_factor},
                      {"original_max_position", rope.llama3->original_max_position}};
  }
  return json;
}

nlohmann::json SpecJson(const ModelSpec& spec) {
  const LayerSpec& layer = spec.decoder.layers.front();
  const AttentionSpec& attention = layer.self_attention;
  nlohmann::json json = {{"family", spec.family},
                         {"layers", spec.num_layers()},
                         {"hidden_size", spec.hidden_size},
                         {"intermediate_size", layer.feed_forward.intermediate_size},
                         {"heads", attention.num_heads},
                         {"kv_heads", attention.num_kv_heads},
                         {"head_dim", attention.head_dim},
                         {"vocab_size", spec.vocab_size},
                         {"max_context", spec.max_context},
                         {"tied_head", spec.tied_head},
                         {"eos_tokens", spec.eos_tokens}};
  if (attention.rope) json["rope"] = RopeJson(*attention.rope);
  if (spec.bos_token) json["bos_token"] = *spec.bos_token;
  return json;
}

// Parameters and the bytes they are stored in.
struct Bytes {
  int64_t parameters = 0;
  int64_t bytes = 0;

  void Add(int64_t more_parameters, int64_t more_bytes) {
    parameters += more_parameters;
    bytes += more_bytes;
  }
  double BitsPerWeight() const {
    return parameters == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
  }
};

}  // namespace

nlohmann::json DescribeJson(const Model& model) {
  nlohmann::json tensors = nlohmann::json::array();
  Bytes all;
  Bytes linear;  // the layers' matrices: what quantization is about
  for (const ExpectedTensor& expected : ExpectedTensors(model.spec)) {
    int64_t parameters = 1;
    for (const int64_t size : expected.shape) parameters *= size;
    nlohmann::json tensor = {{"name", expected.name}, {"shape", expected.shape}};
    int64_t bytes = 0;
    if (const auto quantized = model.checkpoint->FindQuantized(expected.name)) {
      tensor["dtype"] = quantized->FormatText();
      bytes = quantized->stored_bytes;
    } else {
      const auto stored = model.checkpoint->Find(expected.name);
      if (!stored.ok()) continue;
      tensor["dtype"] = Name(stored->dtype);
      bytes = static_cast<int64_t>(stored->bytes.size());
    }
    tensor["bytes"] = bytes;
    all.Add(parameters, bytes);
    const bool in_layer = expected.name.starts_with("layers.") && expected.shape.size() == 2;
    if (in_layer) linear.Add(parameters, bytes);
    tensors.push_back(std::move(tensor));
  }
  return {{"name", model.name},
          {"digest", model.digest},
          {"quantization", model.quantization.empty() ? "none" : model.quantization},
          {"spec", SpecJson(model.spec)},
          {"tensors", tensors},
          {"parameters", all.parameters},
          {"bytes", all.bytes},
          {"linear_parameters", linear.parameters},
          {"linear_bytes", linear.bytes},
          {"linear_bits_per_weight", linear.BitsPerWeight()}};
}

std::string Describe(const Model& model) {
  const nlohmann::json json = DescribeJson(model);
  std::string text = absl::StrFormat("model   %s\ndigest  %s\n", model.name, model.digest);
  for (const auto& [key, value] : json["spec"].items()) {
    absl::StrAppendFormat(&text, "%-18s %s\n", key,
                          value.is_string() ? value.get<std::string>() : value.dump());
  }
  for (const nlohmann::json& tensor : json["tensors"]) {
    absl::StrAppendFormat(&text, "  %-36s %-16s %-16s %12d bytes\n",
                          tensor["name"].get<std::string>(), tensor["dtype"].get<std::string>(),
                          ShapeText(tensor["shape"].get<std::vector<int64_t>>()),
                          tensor["bytes"].get<int64_t>());
  }
  absl::StrAppendFormat(&text, "%d tensors, %d parameters, %d bytes\n", json["tensors"].size(),
                        json["parameters"].get<int64_t>(), json["bytes"].get<int64_t>());
  absl::StrAppendFormat(&text, "quantization %s; linear layers: %d parameters, %d bytes, ",
                        json["quantization"].get<std::string>(),
                        json["linear_parameters"].get<int64_t>(),
                        json["linear_bytes"].get<int64_t>());
  absl::StrAppendFormat(&text, "%.3f bits per weight\n",
                        json["linear_bits_per_weight"].get<double>());
  return text;
}

}  // namespace sauva
