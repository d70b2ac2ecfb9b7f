#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.h"

namespace sauva::testing {

// A CUDA backend in fast arithmetic, nothing reserved yet, and what its GPU is.
struct FastCandidate {
  int compute_capability = 0;
  std::function<std::unique_ptr<Backend>()> make;
};

// What a test program tests: an emulator of each kind of matrix units, or the GPU there is.
std::vector<FastCandidate> FastCandidates();

}  // namespace sauva::testing
