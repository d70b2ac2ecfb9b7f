#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "kernels/bench/measurement.h"
#include "kernels/factory.h"

namespace sauva {

struct KernelBenchOptions {
  int threads = 0;  // 0: all usable cores
  InstructionSet isa = InstructionSet::kAuto;
  int repeats = 5;
  int64_t working_set_bytes = int64_t{640} << 20;  // of the weights that few tokens stream
};

// One kernel at one size.
struct KernelBenchLine {
  std::string kernel;  // "matmul", "attention"
  std::string format;  // of the weights or the KV cache: "int4 g32"
  int tokens = 1;
  Work work;
  Measurement measurement;
};

// Measures matmuls of every weight format for 1, 16 and 512 tokens, and attention at 8192
// tokens of context. Weights are random and the few tokens' working set is as asked, so that
// caches hold little of it; bytes are those in memory, which published formats exceed by up
// to 3 % (zero points that are all the middle one take no memory). `on_line` gets each result as it
// comes. Errors: those of MakeCpuBackend; RESOURCE_EXHAUSTED for memory.
absl::Status RunKernelBench(const KernelBenchOptions& options,
                            const std::function<void(const KernelBenchLine&)>& on_line);

}  // namespace sauva
