#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "proto/control.h"

namespace sauva {

// Bytes this process may still take: what the kernel calls available, or what is left of
// the control group's limit (cgroup v1 and v2) where that is less.
// Errors: UNAVAILABLE when /proc/meminfo cannot be read.
absl::StatusOr<uint64_t> AvailableMemoryBytes();

// The same from the texts of /proc/meminfo and of a control group's limit and usage files;
// a limit that is no number ("max") sets none.
absl::StatusOr<uint64_t> AvailableMemoryBytes(const std::string& meminfo,
                                              const std::string& cgroup_limit,
                                              const std::string& cgroup_usage);

// Bytes that a worker may allocate on its GPU "cuda:N". A stated budget counts the driver's
// context (an allowance, kernels/cuda_access.h); without one, 80 % of what is free.
// Errors: INVALID_ARGUMENT for a budget not above the context's; those of cuda_access.h.
absl::StatusOr<uint64_t> DeviceMemoryBudget(const std::string& device, const std::string& stated);

// What a stage asks of its worker's memory.
struct KvDemand {
  uint64_t budget_bytes = 0;  // of the worker
  uint64_t weight_bytes = 0;
  uint64_t scratch_bytes = 0;
  uint64_t kv_block_bytes = 0;   // over the stage's layers
  uint64_t kv_memory_bytes = 0;  // bound of the assignment; 0: none
  uint64_t useful_blocks = 0;    // more than all sequences at full length need are waste
};

// What the NCCL links of a stage to its neighbours may take: the largest step's hidden states
// and a communicator, for each.
uint64_t LinkBytes(const StageAssignment& assignment, int hidden_size);

// How many KV blocks fit beside weights and scratch.
// Errors: RESOURCE_EXHAUSTED naming the shares and the budget when not even one fits.
absl::StatusOr<uint32_t> MaxKvBlocks(const KvDemand& demand);

}  // namespace sauva
