#pragma once

#include <vector>

#include "model/spec.h"

namespace sauva {

// The KV group of each layer: layers with the same window, key-value heads and head size
// are of one group. Numbered from 0 in the order of first appearance, over the whole model,
// so that every stage means the same group by a number.
std::vector<int> KvGroupOfLayers(const ModelSpec& spec);

int NumKvGroups(const ModelSpec& spec);

}  // namespace sauva
