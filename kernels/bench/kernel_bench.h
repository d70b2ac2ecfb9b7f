#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "kernels/bench/device_bencher.h"
#include "kernels/bench/measurement.h"

namespace sauva {

struct KernelBenchOptions {
  int threads = 0;             // 0: all usable cores
  std::string device = "cpu";  // as MakeBackend takes it
  CudaArithmetic arithmetic = CudaArithmetic::kFast;
  int repeats = 5;
  int64_t working_set_bytes = int64_t{640} << 20;  // of the weights that few tokens stream
};

// One kernel at one size.
struct KernelBenchLine {
  std::string kernel;  // "matmul", "attention"
  std::string format;  // of the weights or the KV cache: "int4 g32"
  std::string shape;   // of the weight, "4096 x 4096"; or of the heads
  int tokens = 1;
  Work work;
  Measurement measurement;
};

// Measures matmuls of every weight format for 1, 16 and 512 tokens, and attention at 8192
// tokens of context. On a host weights are 4096 x 4096; on a GPU they are those of models of 7
// and 13 billion parameters, in the five formats that matter most there. Weights are random and the
// few tokens' working set is as asked, so that caches hold little of it; bytes are those in memory,
// which published formats exceed by up to 3 % (zero points that are all the middle one take no
// memory). `on_line` gets each result as it comes. Errors: those of MakeBackend and MakeBencher;
// RESOURCE_EXHAUSTED for memory.
absl::Status RunKernelBench(const KernelBenchOptions& options,
                            const std::function<void(const KernelBenchLine&)>& on_line);

}  // namespace sauva
