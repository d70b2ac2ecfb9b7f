#include "kernels/nccl_pair.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/device.h"

namespace sauva {
namespace {

static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));

// The functions of libnccl.so.2, so that binaries start on machines without it.
struct NcclLibrary {
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
};

template <class F>
bool Find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<NcclLibrary> OpenLibrary() {
  // Two ranks that send now and then need little; a small card has none to spare.
  setenv("NCCL_BUFFSIZE", "1048576", 0);
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("libnccl.so.2 cannot be used: ", dlerror()));
  }
  NcclLibrary nccl;
  if (Find(library, "ncclGetUniqueId", nccl.get_unique_id) &&
      Find(library, "ncclCommInitRankConfig", nccl.init) &&
      Find(library, "ncclCommGetAsyncError", nccl.async_error) &&
      Find(library, "ncclSend", nccl.send) && Find(library, "ncclRecv", nccl.receive) &&
      Find(library, "ncclCommAbort", nccl.abort) &&
      Find(library, "ncclGetErrorString", nccl.error_string)) {
    return nccl;
  }
  return absl::FailedPreconditionError("libnccl.so.2 is older than 2.14: it lacks a function");
}

absl::Status FromCuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(call, ": ", cudaGetErrorString(error)));
}

class DeviceNcclPair : public NcclPair {
 public:
  DeviceNcclPair(const NcclLibrary& nccl, int device_index, int64_t buffer_floats)
      : nccl_(nccl), device_index_(device_index), buffer_floats_(buffer_floats) {}
  ~DeviceNcclPair() override {
    Abort();
    cudaSetDevice(device_index_);
    cudaFree(buffer_);
    cudaFreeHost(staged_);
    if (moved_ != nullptr) cudaEventDestroy(moved_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Allocate() {
    const auto bytes = static_cast<size_t>(buffer_floats_) * sizeof(float);
    RETURN_IF_ERROR(FromCuda(cudaSetDevice(device_index_), "cudaSetDevice"));
    RETURN_IF_ERROR(FromCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                             "cudaStreamCreateWithFlags"));
    RETURN_IF_ERROR(FromCuda(cudaEventCreateWithFlags(&moved_, cudaEventDisableTiming),
                             "cudaEventCreateWithFlags"));
    RETURN_IF_ERROR(FromCuda(cudaMalloc(&buffer_, bytes), "cudaMalloc"));
    return FromCuda(cudaHostAlloc(&staged_, bytes, cudaHostAllocDefault), "cudaHostAlloc");
  }

  absl::StatusOr<NcclId> MakeId() override {
    ncclUniqueId made;
    RETURN_IF_ERROR(FromNccl(nccl_.get_unique_id(&made), "ncclGetUniqueId"));
    NcclId id;
    std::memcpy(id.data(), &made, sizeof made);
    return id;
  }

  absl::Status Join(const NcclId& id, int rank) override {
    RETURN_IF_ERROR(FromCuda(cudaSetDevice(device_index_), "cudaSetDevice"));
    ncclUniqueId given;
    std::memcpy(&given, id.data(), sizeof given);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.minCTAs = 1;
    config.maxCTAs = 1;
    rank_ = rank;
    doing_ = Doing::kJoining;
    return FromNccl(nccl_.init(&communicator_, 2, given, rank, &config), "ncclCommInitRankConfig");
  }

  absl::Status Send(std::span<const float> values) override {
    RETURN_IF_ERROR(Begin(static_cast<int64_t>(values.size()), Doing::kSending));
    std::copy(values.begin(), values.end(), staged_);
    RETURN_IF_ERROR(FromCuda(
        cudaMemcpyAsync(buffer_, staged_, values.size_bytes(), cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync"));
    return FromNccl(
        nccl_.send(buffer_, values.size(), ncclFloat32, 1 - rank_, communicator_, stream_),
        "ncclSend");
  }

  absl::Status Receive(int64_t count) override {
    RETURN_IF_ERROR(Begin(count, Doing::kReceiving));
    return FromNccl(nccl_.receive(buffer_, static_cast<size_t>(count), ncclFloat32, 1 - rank_,
                                  communicator_, stream_),
                    "ncclRecv");
  }

  absl::StatusOr<Progress> Poll() override {
    RETURN_IF_ERROR(FromCuda(cudaSetDevice(device_index_), "cudaSetDevice"));
    ncclResult_t state = ncclInProgress;
    RETURN_IF_ERROR(FromNccl(nccl_.async_error(communicator_, &state), "ncclCommGetAsyncError"));
    RETURN_IF_ERROR(FromNccl(state, "the communicator"));
    if (state == ncclInProgress) return Progress::kInProgress;
    if (doing_ == Doing::kJoining) return Progress::kDone;
    if (!recorded_) RETURN_IF_ERROR(RecordEnd());
    const cudaError_t moved = cudaEventQuery(moved_);
    if (moved == cudaErrorNotReady) return Progress::kInProgress;
    RETURN_IF_ERROR(FromCuda(moved, "cudaEventQuery"));
    return Progress::kDone;
  }

  std::span<const float> received() const override {
    return doing_ == Doing::kReceiving ? std::span(staged_, static_cast<size_t>(count_))
                                       : std::span<const float>();
  }

  void Abort() override {
    if (communicator_ == nullptr) return;
    cudaSetDevice(device_index_);
    nccl_.abort(std::exchange(communicator_, nullptr));
  }

 private:
  enum class Doing { kJoining, kSending, kReceiving };

  absl::Status Begin(int64_t count, Doing doing) {
    if (count <= 0 || count > buffer_floats_) {
      return absl::InvalidArgumentError(
          absl::StrCat(count, " numbers by NCCL; the buffer holds ", buffer_floats_));
    }
    count_ = count;
    doing_ = doing;
    recorded_ = false;
    return FromCuda(cudaSetDevice(device_index_), "cudaSetDevice");
  }

  // Once NCCL has queued the transfer: what comes after it on the stream.
  absl::Status RecordEnd() {
    if (doing_ == Doing::kReceiving) {
      RETURN_IF_ERROR(
          FromCuda(cudaMemcpyAsync(staged_, buffer_, static_cast<size_t>(count_) * sizeof(float),
                                   cudaMemcpyDeviceToHost, stream_),
                   "cudaMemcpyAsync"));
    }
    RETURN_IF_ERROR(FromCuda(cudaEventRecord(moved_, stream_), "cudaEventRecord"));
    recorded_ = true;
    return absl::OkStatus();
  }

  absl::Status FromNccl(ncclResult_t result, const char* call) const {
    if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(call, ": ", nccl_.error_string(result)));
  }

  const NcclLibrary nccl_;
  const int device_index_;
  const int64_t buffer_floats_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t moved_ = nullptr;
  float* buffer_ = nullptr;  // device
  float* staged_ = nullptr;  // pinned host
  ncclComm_t communicator_ = nullptr;
  int rank_ = 0;
  Doing doing_ = Doing::kJoining;
  int64_t count_ = 0;
  bool recorded_ = false;  // moved_ stands behind what was begun last
};

}  // namespace

absl::StatusOr<std::unique_ptr<NcclPair>> OpenNcclPair(int device_index, int64_t buffer_floats) {
  ASSIGN_OR_RETURN(const NcclLibrary nccl, OpenLibrary());
  RETURN_IF_ERROR(cuda::OpenDevice(device_index, 0).status());
  auto pair = std::make_unique<DeviceNcclPair>(nccl, device_index, buffer_floats);
  RETURN_IF_ERROR(pair->Allocate());
  return pair;
}

}  // namespace sauva
