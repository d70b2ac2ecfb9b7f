#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/spec.h"

namespace sauva {

struct ExpectedTensor {
  std::string name;            // canonical, model/tensor_names.h
  std::vector<int64_t> shape;  // row-major; matrices are [out, in]
  bool operator==(const ExpectedTensor&) const = default;
};

// Every tensor that a model of this spec must have; it follows from the spec alone.
// Order: embedding, layers, final norm, head.
std::vector<ExpectedTensor> ExpectedTensors(const ModelSpec& spec);

}  // namespace sauva
