#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/copying_backend.h"
#include "tests/cuda/emulator/emulated_device.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva::testing {

std::vector<Candidate> Candidates() {
  constexpr int64_t kBudget = int64_t{1} << 30;
  return {{"cuda_emulated",
           [] { return std::make_unique<cuda::CudaBackend>(cuda::MakeEmulatedDevice(kBudget)); }}};
}

std::vector<DType> KvTypes() { return {DType::kF32, DType::kF16}; }

}  // namespace sauva::testing
