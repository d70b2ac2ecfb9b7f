#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda_access.h"

namespace sauva {

// The backend every other one is tested against: one plain loop per op, one thread.
std::unique_ptr<Backend> MakeReferenceBackend();

enum class InstructionSet { kAuto, kScalar, kAvx2, kAvx512 };

struct CpuOptions {
  int threads = 0;  // 0: the cores this process may use (cgroup limits counted)
  InstructionSet isa = InstructionSet::kAuto;
};

// Errors: FAILED_PRECONDITION when this CPU lacks the instruction set asked for.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuOptions& options);

// The instruction sets this CPU can run, slowest first.
std::vector<InstructionSet> SupportedInstructionSets();
const char* Name(InstructionSet isa);  // "scalar", "avx2", "avx512"

// "cpu", "cpu:scalar", "cpu:avx2", "cpu:avx512", "reference" or "cuda:N", as --device says.
// A GPU's backend takes no more than `device_memory_bytes` of its memory; 0: what is free.
// `cuda` is for GPUs, too: hosts compute in one way.
// Errors: INVALID_ARGUMENT naming the choices; those of kernels/cuda_access.h.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& device, int threads,
                                                     int64_t device_memory_bytes = 0,
                                                     const CudaOptions& cuda = {});

// Cores this process may use: affinity and cgroup v1/v2 quotas counted; at least 1.
int UsableCores();

}  // namespace sauva
