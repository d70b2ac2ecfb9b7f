#include "kernels/bench/device_bencher.h"

#include "base/status_macros.h"

namespace sauva {

InstructionSet InstructionSetOf(const std::string& device) {
  for (const InstructionSet isa : SupportedInstructionSets()) {
    if (device == std::string("cpu:") + Name(isa)) return isa;
  }
  return InstructionSet::kAuto;
}

absl::StatusOr<std::unique_ptr<Bencher>> MakeBencher(const BenchDevice& device, int repeats) {
  if (!IsCuda(device.device)) {
    return Bencher::Create({.threads = device.threads,
                            .read_bytes = device.read_bytes,
                            .isa = InstructionSetOf(device.device)},
                           repeats);
  }
  ASSIGN_OR_RETURN(const int index, CudaIndex(device.device));
  ASSIGN_OR_RETURN(const CudaRates rates, MeasureCudaRates(index));
  const bool fast = device.arithmetic == CudaArithmetic::kFast;
  return std::make_unique<Bencher>(
      Limits{.read_bytes_per_second = rates.general.read_bytes_per_second,
             .int8_operations_per_second = rates.int8_operations_per_second,
             .float_operations_per_second =
                 fast ? rates.f16_operations_per_second : rates.general.operations_per_second,
             .floats = fast ? "f16" : "f32"},
      repeats);
}

}  // namespace sauva
