#include "engine/kv_groups.h"

#include <algorithm>

namespace sauva {
namespace {

bool SameGroup(const AttentionSpec& a, const AttentionSpec& b) {
  return a.window == b.window && a.num_kv_heads == b.num_kv_heads && a.head_dim == b.head_dim;
}

}  // namespace

std::vector<int> KvGroupOfLayers(const ModelSpec& spec) {
  std::vector<const AttentionSpec*> groups;
  std::vector<int> group_of_layer;
  for (const LayerSpec& layer : spec.decoder.layers) {
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const AttentionSpec* group) {
      return SameGroup(*group, layer.self_attention);
    });
    group_of_layer.push_back(static_cast<int>(found - groups.begin()));
    if (found == groups.end()) groups.push_back(&layer.self_attention);
  }
  return group_of_layer;
}

int NumKvGroups(const ModelSpec& spec) {
  const std::vector<int> groups = KvGroupOfLayers(spec);
  return groups.empty() ? 0 : *std::max_element(groups.begin(), groups.end()) + 1;
}

}  // namespace sauva
