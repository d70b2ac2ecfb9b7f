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

}  // namespace

nlohmann::json DescribeJson(const Model& model) {
  nlohmann::json tensors = nlohmann::json::array();
  int64_t total_bytes = 0;
  int64_t total_parameters = 0;
  for (const ExpectedTensor& expected : ExpectedTensors(model.spec)) {
    const auto tensor = model.checkpoint->Find(expected.name);
    if (!tensor.ok()) continue;
    const auto bytes = static_cast<int64_t>(tensor->bytes.size());
    total_bytes += bytes;
    total_parameters += bytes / SizeOf(tensor->dtype);
    tensors.push_back({{"name", expected.name},
                       {"dtype", Name(tensor->dtype)},
                       {"shape", tensor->shape},
                       {"bytes", bytes}});
  }
  return {{"name", model.name}, {"digest", model.digest},         {"spec", SpecJson(model.spec)},
          {"tensors", tensors}, {"parameters", total_parameters}, {"bytes", total_bytes}};
}

std::string Describe(const Model& model) {
  const nlohmann::json json = DescribeJson(model);
  std::string text = absl::StrFormat("model   %s\ndigest  %s\n", model.name, model.digest);
  for (const auto& [key, value] : json["spec"].items()) {
    absl::StrAppendFormat(&text, "%-18s %s\n", key,
                          value.is_string() ? value.get<std::string>() : value.dump());
  }
  for (const nlohmann::json& tensor : json["tensors"]) {
    absl::StrAppendFormat(&text, "  %-36s %-5s %-16s %12d bytes\n",
                          tensor["name"].get<std::string>(), tensor["dtype"].get<std::string>(),
                          ShapeText(tensor["shape"].get<std::vector<int64_t>>()),
                          tensor["bytes"].get<int64_t>());
  }
  absl::StrAppendFormat(&text, "%d tensors, %d parameters, %d bytes\n", json["tensors"].size(),
                        json["parameters"].get<int64_t>(), json["bytes"].get<int64_t>());
  return text;
}

}  // namespace sauva
