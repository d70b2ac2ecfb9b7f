#pragma once

#include <string>
#include <vector>

#include "model/safetensors.h"
#include "model/tokenizer.h"

namespace sauva {

// 64 hex digits that name a model: SHA-256 over the names and contents of its small files
// and the names, sizes and headers of its safetensors files. No tensor data is read, so
// weights retrained in place under an equal header are not told apart.
std::string ModelDigest(const ModelFiles& files, const std::vector<SafetensorsFile>& weights);

}  // namespace sauva
