#include <cstdio>
#include <cstdlib>

#include "kernels/cuda_access.h"
#include "tests/cuda/copying_backend.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva::testing {
namespace {

// ctest's SKIP_RETURN_CODE of the tests that need a GPU.
constexpr int kSkipped = 77;

}  // namespace

std::vector<Candidate> Candidates() {
  if (const auto device = MakeCudaBackend(0, 0); !device.ok()) {
    std::printf("skipped: %s\n", std::string(device.status().message()).c_str());
    std::fflush(stdout);
    std::_Exit(kSkipped);
  }
  return {{"cuda_0", [] { return MakeCopyingBackend(*MakeCudaBackend(0, int64_t{1} << 30)); }}};
}

std::vector<DType> KvTypes() { return {DType::kF32, DType::kF16}; }

}  // namespace sauva::testing
