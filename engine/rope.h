#pragma once

#include <vector>

#include "model/spec.h"

namespace sauva {

// Radians each pair of dimensions turns per position, scaling applied; [rotary_dims / 2].
// Computed in f32, operation by operation as transformers does, since a different last bit
// grows with the position.
// Source: transformers, modeling_rope_utils.py ("default", "linear" and "llama3").
std::vector<float> InverseFrequencies(const RopeSpec& rope);

}  // namespace sauva
