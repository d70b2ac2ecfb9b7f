#include "kernels/cuda/device_lost.h"

#include <cstdio>
#include <cstdlib>

namespace sauva::cuda {

void EndAsDeviceLost(const std::string& call, const std::string& error) {
  std::fprintf(stderr, "the GPU failed in %s: %s\n", call.c_str(), error.c_str());
  std::fflush(stderr);
  std::_Exit(kDeviceLostExitCode);
}

}  // namespace sauva::cuda
