#include "kernels/cuda/cuda_backend.h"
#include "tests/cuda/emulator/emulated_device.h"
#include "tests/cuda/fast_candidates.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva::testing {
namespace {

constexpr int64_t kBudget = int64_t{1} << 30;

}  // namespace

std::vector<Candidate> Candidates() {
  return {{"cuda_emulated", [] {
             return std::make_unique<cuda::CudaBackend>(
                 cuda::MakeEmulatedDevice(kBudget),
                 CudaOptions{.arithmetic = CudaArithmetic::kDeterministic});
           }}};
}

std::vector<FastCandidate> FastCandidates() {
  std::vector<FastCandidate> candidates;
  for (const int capability : {75, 80}) {
    candidates.push_back(
        {capability, [capability] {
           return std::make_unique<cuda::CudaBackend>(
               cuda::MakeEmulatedDevice(kBudget, {.compute_capability = capability}),
               CudaOptions{.arithmetic = CudaArithmetic::kFast});
         }});
  }
  return candidates;
}

}  // namespace sauva::testing
