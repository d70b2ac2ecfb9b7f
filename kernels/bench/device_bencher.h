#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/bench/measurement.h"
#include "kernels/cuda_access.h"

namespace sauva {

// Where a benchmark runs.
struct BenchDevice {
  std::string device = "cpu";  // as MakeBackend takes it
  CudaArithmetic arithmetic = CudaArithmetic::kFast;
  int threads = 1;
  int64_t read_bytes = 0;  // read to know a host's bandwidth
};

// The instruction set that a device's name forces: "cpu:avx2". kAuto for any other name.
InstructionSet InstructionSetOf(const std::string& device);

// Beside what the device does at most: a host is probed between repetitions, a GPU once, floats
// in the instructions that its arithmetic multiplies f16 with.
// Errors: those of Bencher::Create and MeasureCudaRates.
absl::StatusOr<std::unique_ptr<Bencher>> MakeBencher(const BenchDevice& device, int repeats);

}  // namespace sauva
