#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/cuda/device.h"

// What is refused before anything of a GPU is taken, and how it is said. No CUDA call here.
namespace sauva::cuda {

// Versions as CUDA gives them: 12040 is 12.4; a driver of 0: there is none.
// Errors: FAILED_PRECONDITION naming both versions.
absl::Status CheckDriver(int driver, int runtime);

// Errors: NOT_FOUND naming index and count.
absl::Status CheckIndex(int index, int count);

// For a GPU that the build has no code for; `architectures` is what it has code for.
absl::Status NoCodeFor(int index, const DeviceFacts& facts, const std::string& architectures);

// The bytes that may be taken of a GPU: `budget`, or all that is free when that is 0.
// Errors: RESOURCE_EXHAUSTED naming the budget, what is free and what there is.
absl::Status CheckBudget(int index, const DeviceFacts& facts, int64_t budget_bytes);

}  // namespace sauva::cuda
