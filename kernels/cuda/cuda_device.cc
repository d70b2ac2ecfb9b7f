#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_lost.h"
#include "kernels/cuda/probe.h"

namespace sauva::cuda {

void EndAsDeviceLost(const std::string& call, const std::string& error) {
  std::fprintf(stderr, "the GPU failed in %s: %s\n", call.c_str(), error.c_str());
  std::fflush(stderr);
  std::_Exit(kDeviceLostExitCode);
}

namespace {

// For calls that fail only when the device does.
void Must(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  EndAsDeviceLost(call, absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

std::string Text(cudaError_t error) {
  return absl::StrCat(cudaGetErrorName(error), " (", cudaGetErrorString(error), ")");
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

class CudaDevice : public Device {
 public:
  CudaDevice(int64_t budget_bytes, DeviceFacts facts, cudaStream_t stream)
      : Device(budget_bytes), facts_(std::move(facts)), stream_(stream) {}
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  const DeviceFacts& facts() const override { return facts_; }
  void* stream() override { return stream_; }

  absl::StatusOr<void*> AllocatePinned(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error =
        cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
    if (error == cudaSuccess) return memory;
    cudaGetLastError();  // it is told, so it is over
    return absl::ResourceExhaustedError(
        absl::StrCat(bytes, " bytes of pinned host memory: ", Text(error)));
  }
  void FreePinned(void* memory) override { Must(cudaFreeHost(memory), "cudaFreeHost"); }

  void CopyToDevice(const RowCopy& copy) override { Copy(copy, cudaMemcpyHostToDevice); }
  void CopyToHost(const RowCopy& copy) override { Copy(copy, cudaMemcpyDeviceToHost); }
  void Wait() override {
    Must(cudaGetLastError(), "a kernel launch");
    Must(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

 private:
  absl::StatusOr<void*> AllocateOnDevice(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error != cudaSuccess) {
      cudaGetLastError();
      return absl::ResourceExhaustedError(
          absl::StrCat(bytes, " bytes of device memory asked for, of which ", used_bytes(),
                       " are taken: ", Text(error), "; another process may use the GPU too"));
    }
    Must(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_), "cudaMemsetAsync");
    return memory;
  }
  void FreeOnDevice(void* memory) override { Must(cudaFree(memory), "cudaFree"); }

  void Copy(const RowCopy& copy, cudaMemcpyKind kind) {
    if (copy.rows == 0 || copy.row_bytes == 0) return;
    const auto width = static_cast<size_t>(copy.row_bytes);
    if (copy.rows == 1) {
      return Must(cudaMemcpyAsync(copy.to, copy.from, width, kind, stream_), "cudaMemcpyAsync");
    }
    Must(cudaMemcpy2DAsync(copy.to, static_cast<size_t>(copy.to_stride), copy.from,
                           static_cast<size_t>(copy.from_stride), width,
                           static_cast<size_t>(copy.rows), kind, stream_),
         "cudaMemcpy2DAsync");
  }

  const DeviceFacts facts_;
  const cudaStream_t stream_;
};

// Errors: FAILED_PRECONDITION.
absl::Status CheckDriver() {
  int driver = 0;
  int runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return absl::FailedPreconditionError("no NVIDIA driver is installed on this machine");
  }
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = CUDART_VERSION;
  // Minor versions are compatible with each other, major versions only backwards.
  if (driver / 1000 < runtime / 1000) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is made for CUDA ", VersionText(driver),
                     "; this build needs CUDA ", VersionText(runtime), ": update the driver"));
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceFacts> FactsOf(int index) {
  cudaDeviceProp properties;
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) {
    return absl::FailedPreconditionError(absl::StrCat("GPU ", index, ": ", Text(error)));
  }
  DeviceFacts facts = {.name = properties.name,
                       .compute_capability = 10 * properties.major + properties.minor,
                       .num_multiprocessors = properties.multiProcessorCount,
                       .total_bytes = static_cast<int64_t>(properties.totalGlobalMem)};
  error = cudaSetDevice(index);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "GPU ", index, " (", facts.name, ") takes no context of this process: ", Text(error)));
  }
  facts.free_bytes = static_cast<int64_t>(free_bytes);
  return facts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(int index, int64_t budget_bytes) {
  RETURN_IF_ERROR(CheckDriver());
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return absl::FailedPreconditionError(absl::StrCat("no GPU can be used: ", Text(error)));
  }
  if (index < 0 || index >= count) {
    return absl::NotFoundError(
        absl::StrCat("GPU ", index, " of ", count, "; they are counted from 0"));
  }
  ASSIGN_OR_RETURN(DeviceFacts facts, FactsOf(index));
  if (!HasCodeForThisDevice()) {
    cudaGetLastError();
    return absl::FailedPreconditionError(absl::StrCat(
        "GPU ", index, " (", facts.name, ") has compute capability ", facts.compute_capability / 10,
        ".", facts.compute_capability % 10, "; this build has code for ", SAUVA_CUDA_ARCHITECTURES,
        " (SAUVA_CUDA_ARCHITECTURES)"));
  }
  if (budget_bytes == 0) budget_bytes = facts.free_bytes;
  if (budget_bytes > facts.free_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a budget of ", budget_bytes, " bytes on GPU ", index, " (", facts.name,
                     "), of whose ", facts.total_bytes, " bytes ", facts.free_bytes, " are free"));
  }
  cudaStream_t stream = nullptr;
  const cudaError_t created = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (created != cudaSuccess) {
    return absl::ResourceExhaustedError(
        absl::StrCat("GPU ", index, " (", facts.name, ") gives no stream: ", Text(created)));
  }
  return std::make_unique<CudaDevice>(budget_bytes, std::move(facts), stream);
}

}  // namespace sauva::cuda
