#pragma once

namespace sauva {

// What this machine does at most with so many threads, for placement and for shares of the
// peak. Measured in the kernels' own instructions.
struct MachineRates {
  // Of 64 MiB read by all threads together: from memory, or from a last-level cache as large.
  double read_bytes_per_second = 0;
  double operations_per_second = 0;  // f32 multiplications and additions
};

// Takes less than 200 ms and 64 MiB, which are given back.
MachineRates MeasureMachineRates(int threads);

}  // namespace sauva
