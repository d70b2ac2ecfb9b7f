#include "kernels/cuda_access.h"

#include "base/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_checks.h"
#include "kernels/cuda/probe.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(int index, int64_t memory_bytes,
                                                         const CudaOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<cuda::Device> device, cuda::OpenDevice(index, memory_bytes));
  return std::make_unique<cuda::CudaBackend>(std::move(device), options);
}

bool BuildHasCuda() { return true; }

absl::StatusOr<uint64_t> FreeCudaMemory(int index) {
  ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Device> device, cuda::OpenDevice(index, 0));
  return static_cast<uint64_t>(device->facts().free_bytes);
}

absl::Status CheckCudaMemory(int index, uint64_t bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Device> device, cuda::OpenDevice(index, 0));
  return cuda::CheckBudget(index, device->facts(), static_cast<int64_t>(bytes));
}

absl::StatusOr<std::string> CudaDeviceId(int index) {
  ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Device> device, cuda::OpenDevice(index, 0));
  return device->facts().id;
}

absl::StatusOr<CudaRates> MeasureCudaRates(int index) {
  ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Device> device, cuda::OpenDevice(index, 0));
  const cuda::DeviceRates rates = cuda::MeasureDeviceRates();
  return CudaRates{.general = {.read_bytes_per_second = rates.read_bytes_per_second,
                               .operations_per_second = rates.operations_per_second},
                   .f16_operations_per_second = rates.f16_operations_per_second,
                   .int8_operations_per_second = rates.int8_operations_per_second};
}

}  // namespace sauva
