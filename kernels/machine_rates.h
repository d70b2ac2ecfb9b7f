#pragma once

#include <cstdint>

namespace sauva {

// What this machine does at most with so many threads, for placement and for shares of the
// peak. Measured in the kernels' own instructions.
struct MachineRates {
  // Of four times the last-level cache, read by all threads together; where that is more
  // than MeasureMachineRates may take, a large cache has its part in it.
  double read_bytes_per_second = 0;
  double operations_per_second = 0;  // f32 multiplications and additions
};

// Takes about half a second and at most 256 MiB and a quarter of `memory_bytes`, which are
// given back. Rates are the median of several rounds: the machine does other work too.
MachineRates MeasureMachineRates(int threads, uint64_t memory_bytes);

}  // namespace sauva
