#include "kernels/cuda/failed_launch.h"

#include <cuda_runtime_api.h>

#include "base/log.h"

namespace sauva::cuda {

void LogFailedLaunch(const void* kernel, int64_t blocks, int threads, int shared_bytes) {
  const char* name = "unknown";
#if CUDART_VERSION >= 12030
  if (cudaFuncGetName(&name, kernel) != cudaSuccess) name = "unknown";
#else
  (void)kernel;
#endif
  LogError("a kernel could not be launched", {{"kernel", name},
                                              {"error", cudaGetErrorName(cudaPeekAtLastError())},
                                              {"blocks", blocks},
                                              {"threads", threads},
                                              {"shared_bytes", shared_bytes}});
}

}  // namespace sauva::cuda
