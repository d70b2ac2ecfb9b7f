#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace sauva {

// What a backend keeps for steps of a stage beside weights, KV cache and what a stage
// allocates; a value, so that whoever plans need not know yet where the stage will be.
struct BackendScratch {
  StepLimits limits;
  int64_t max_columns = 0;  // of a matrix's input
  int vocab_size = 0;

  // Units: bytes. What Backend::reserved_bytes of the CPU backend will be.
  int64_t BytesOnCpu(int threads) const;
  // The most that the CUDA backend takes of its device, whatever the formats of the weights and
  // with step graphs.
  int64_t MostBytesOnGpu() const;
};

}  // namespace sauva
