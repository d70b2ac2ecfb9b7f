#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/device.h"
#include "kernels/transfer_memory.h"

namespace sauva {
namespace {

absl::Status FromCuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // it is told, so it is over
  return absl::InternalError(absl::StrCat(call, ": ", cudaGetErrorString(error)));
}

class CudaTransferMemory : public TransferMemory {
 public:
  CudaTransferMemory(int index, int64_t size_bytes) : index_(index), size_bytes_(size_bytes) {}
  ~CudaTransferMemory() override {
    cudaSetDevice(index_);
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);  // no longer than an abort takes
    cudaFree(buffer_);
    cudaFreeHost(staged_);
    if (mark_ != nullptr) cudaEventDestroy(mark_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Allocate() {
    const auto bytes = static_cast<size_t>(size_bytes_);
    RETURN_IF_ERROR(Enter());
    RETURN_IF_ERROR(FromCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                             "cudaStreamCreateWithFlags"));
    RETURN_IF_ERROR(FromCuda(cudaEventCreateWithFlags(&mark_, cudaEventDisableTiming),
                             "cudaEventCreateWithFlags"));
    cudaError_t error = cudaMalloc(&buffer_, bytes);
    if (error == cudaSuccess) error = cudaHostAlloc(&staged_, bytes, cudaHostAllocDefault);
    if (error == cudaSuccess) return absl::OkStatus();
    cudaGetLastError();  // it is told, so it is over
    return absl::ResourceExhaustedError(absl::StrCat(size_bytes_, " bytes on GPU ", index_,
                                                     " for a link: ", cudaGetErrorString(error)));
  }

  absl::Status Enter() override { return FromCuda(cudaSetDevice(index_), "cudaSetDevice"); }
  int64_t size_bytes() const override { return size_bytes_; }
  void* data() override { return buffer_; }
  void* queue() override { return stream_; }
  absl::Status Put(std::span<const std::byte> bytes) override {
    std::memcpy(staged_, bytes.data(), bytes.size());
    return FromCuda(
        cudaMemcpyAsync(buffer_, staged_, bytes.size(), cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync");
  }
  absl::Status QueueEnd(int64_t num_bytes) override {
    if (num_bytes > 0) {
      RETURN_IF_ERROR(FromCuda(cudaMemcpyAsync(staged_, buffer_, static_cast<size_t>(num_bytes),
                                               cudaMemcpyDeviceToHost, stream_),
                               "cudaMemcpyAsync"));
    }
    return FromCuda(cudaEventRecord(mark_, stream_), "cudaEventRecord");
  }
  absl::StatusOr<bool> Done() override {
    const cudaError_t state = cudaEventQuery(mark_);
    if (state == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    RETURN_IF_ERROR(FromCuda(state, "cudaEventQuery"));
    return true;
  }
  const std::byte* fetched() const override { return static_cast<const std::byte*>(staged_); }

 private:
  const int index_;
  const int64_t size_bytes_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t mark_ = nullptr;
  void* buffer_ = nullptr;  // of the device
  void* staged_ = nullptr;  // pinned, of the host
};

}  // namespace

absl::StatusOr<std::unique_ptr<TransferMemory>> MakeCudaTransferMemory(int index, int64_t bytes) {
  RETURN_IF_ERROR(cuda::OpenDevice(index, 0).status());
  auto memory = std::make_unique<CudaTransferMemory>(index, bytes);
  RETURN_IF_ERROR(memory->Allocate());
  return memory;
}

}  // namespace sauva
