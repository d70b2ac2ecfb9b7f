#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/cuda_access.h"
#include "tests/cuda/copying_backend.h"
#include "tests/cuda/fast_candidates.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva::testing {
namespace {

// ctest's SKIP_RETURN_CODE of the tests that need a GPU.
constexpr int kSkipped = 77;
constexpr int64_t kBudget = int64_t{1} << 30;

// Ends the program as one that is skipped where there is no GPU.
std::unique_ptr<Backend> OpenGpu(CudaArithmetic arithmetic) {
  auto backend = MakeCudaBackend(0, kBudget, {.arithmetic = arithmetic});
  if (backend.ok()) return *std::move(backend);
  std::printf("skipped: %s\n", std::string(backend.status().message()).c_str());
  std::fflush(stdout);
  std::_Exit(kSkipped);
}

std::unique_ptr<Backend> Copying(CudaArithmetic arithmetic) {
  return MakeCopyingBackend(OpenGpu(arithmetic));
}

}  // namespace

std::vector<Candidate> Candidates() {
  OpenGpu(CudaArithmetic::kDeterministic);
  return {{"cuda_0", [] { return Copying(CudaArithmetic::kDeterministic); }}};
}

std::vector<FastCandidate> FastCandidates() {
  const std::string backend_class = OpenGpu(CudaArithmetic::kFast)->backend_class();
  constexpr size_t kPrefix = std::string_view("cuda-sm").size();
  return {
      {std::atoi(backend_class.c_str() + kPrefix), [] { return Copying(CudaArithmetic::kFast); }}};
}

}  // namespace sauva::testing
