#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/factory.h"
#include "kernels/host_memory.h"

namespace sauva {

struct RateProbeOptions {
  int threads = 1;
  int64_t read_bytes = 0;  // of the memory that is read; whole MiB are used, at least one
  InstructionSet isa = InstructionSet::kAuto;
};

// What this machine can do at most right now, in the kernels' own instructions: each call
// measures anew, since clocks and neighbours change within seconds.
// Thread: one at a time.
class RateProbe {
 public:
  // Errors: RESOURCE_EXHAUSTED with the bytes, those of SelectKernels.
  static absl::StatusOr<std::unique_ptr<RateProbe>> Create(const RateProbeOptions& options);

  // Of one pass of all threads over the memory.
  double ReadBytesPerSecond();
  // f32 multiplications and additions, and those of int8 codes; about 3 ms each.
  double FloatOperationsPerSecond();
  double Int8OperationsPerSecond();

 private:
  RateProbe(const KernelTable& kernels, int threads) : kernels_(kernels), pool_(threads) {}
  double OperationsPerSecond(float (*run)(int64_t iterations), double operations_each);

  const KernelTable& kernels_;
  ThreadPool pool_;
  HostMemory memory_;
  int64_t tiles_ = 0;
};

}  // namespace sauva
