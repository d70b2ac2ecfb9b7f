#include <cuda_runtime_api.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_checks.h"
#include "kernels/cuda/device_lost.h"
#include "kernels/cuda/probe.h"

namespace sauva::cuda {
namespace {

// For calls that fail only when the device does.
void Must(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  EndAsDeviceLost(call, absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

// Of an error that the caller is told of. The runtime would tell of it again, of whatever is
// launched next; an error that lasts comes back by itself.
std::string Text(cudaError_t error) {
  cudaGetLastError();
  return absl::StrCat(cudaGetErrorName(error), " (", cudaGetErrorString(error), ")");
}

class CudaRecording : public Recording {
 public:
  explicit CudaRecording(cudaGraphExec_t executable) : executable_(executable) {}
  ~CudaRecording() override { cudaGraphExecDestroy(executable_); }
  cudaGraphExec_t executable() const { return executable_; }

 private:
  const cudaGraphExec_t executable_;
};

absl::Status NotRecorded(cudaError_t error, const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", Text(error)));
}

class CudaDevice : public Device {
 public:
  CudaDevice(int index, int64_t budget_bytes, DeviceFacts facts, cudaStream_t stream)
      : Device(budget_bytes), index_(index), facts_(std::move(facts)), stream_(stream) {}
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  const DeviceFacts& facts() const override { return facts_; }
  void* stream() override { return stream_; }

  absl::StatusOr<void*> AllocatePinned(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error =
        cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
    if (error == cudaSuccess) return memory;
    return absl::ResourceExhaustedError(
        absl::StrCat(bytes, " bytes of pinned host memory: ", Text(error)));
  }
  void FreePinned(void* memory) override { Must(cudaFreeHost(memory), "cudaFreeHost"); }

  void CopyToDevice(const RowCopy& copy) override { Copy(copy, cudaMemcpyHostToDevice); }
  void CopyToHost(const RowCopy& copy) override { Copy(copy, cudaMemcpyDeviceToHost); }

  // Other threads of the process may use the device meanwhile, so the capture is this thread's.
  absl::Status BeginRecording() override {
    Must(cudaGetLastError(), "a kernel launch");
    const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    return error == cudaSuccess ? absl::OkStatus() : NotRecorded(error, "cudaStreamBeginCapture");
  }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecording() override {
    const cudaError_t launched = cudaGetLastError();
    cudaGraph_t graph = nullptr;
    cudaError_t error = cudaStreamEndCapture(stream_, &graph);
    if (error != cudaSuccess) return NotRecorded(error, "cudaStreamEndCapture");
    if (launched != cudaSuccess) {
      cudaGraphDestroy(graph);
      return NotRecorded(launched, "a kernel launch that was recorded");
    }
    cudaGraphExec_t executable = nullptr;
    error = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    if (error != cudaSuccess) return NotRecorded(error, "cudaGraphInstantiate");
    return std::make_unique<CudaRecording>(executable);
  }
  void Replay(Recording& recording) override {
    Must(cudaGraphLaunch(static_cast<CudaRecording&>(recording).executable(), stream_),
         "cudaGraphLaunch");
  }

 private:
  void Enter() override { Must(cudaSetDevice(index_), "cudaSetDevice"); }
  void WaitForStream() override {
    Must(cudaGetLastError(), "a kernel launch");
    Must(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  absl::StatusOr<void*> AllocateOnDevice(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error != cudaSuccess) {
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

  const int index_;
  const DeviceFacts facts_;
  const cudaStream_t stream_;
};

// Errors: as CheckDriver.
absl::Status CheckInstalledDriver() {
  int driver = 0;
  int runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = CUDART_VERSION;
  return CheckDriver(driver, runtime);
}

absl::StatusOr<DeviceFacts> FactsOf(int index) {
  cudaDeviceProp properties;
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) {
    return absl::FailedPreconditionError(absl::StrCat("GPU ", index, ": ", Text(error)));
  }
  const absl::string_view uuid(properties.uuid.bytes, sizeof properties.uuid.bytes);
  DeviceFacts facts = {.name = properties.name,
                       .id = absl::StrCat("GPU-", absl::BytesToHexString(uuid)),
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
  RETURN_IF_ERROR(CheckInstalledDriver());
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return absl::FailedPreconditionError(absl::StrCat("no GPU can be used: ", Text(error)));
  }
  RETURN_IF_ERROR(CheckIndex(index, count));
  ASSIGN_OR_RETURN(DeviceFacts facts, FactsOf(index));
  if (!HasCodeForThisDevice()) {
    cudaGetLastError();
    return NoCodeFor(index, facts, SAUVA_CUDA_ARCHITECTURES);
  }
  if (budget_bytes == 0) budget_bytes = facts.free_bytes;
  cudaStream_t stream = nullptr;
  const cudaError_t created = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (created != cudaSuccess) {
    return absl::ResourceExhaustedError(
        absl::StrCat("GPU ", index, " (", facts.name, ") gives no stream: ", Text(created)));
  }
  return std::make_unique<CudaDevice>(index, budget_bytes, std::move(facts), stream);
}

}  // namespace sauva::cuda
