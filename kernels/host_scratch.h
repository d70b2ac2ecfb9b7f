#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace sauva {

// What the CPU backend keeps for steps of a stage beside weights, KV cache and what a stage
// allocates; a value, so that whoever plans need not know its threads yet.
struct HostScratch {
  StepLimits limits;
  int64_t max_columns = 0;  // of a matrix's input
  int vocab_size = 0;

  // Units: bytes. What Backend::reserved_bytes of the CPU backend will be.
  int64_t BytesFor(int threads) const;
};

}  // namespace sauva
