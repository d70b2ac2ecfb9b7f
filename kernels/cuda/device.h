#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sauva::cuda {

struct DeviceFacts {
  std::string name;
  std::string id;              // as "GPU-1f…", of this GPU alone
  int compute_capability = 0;  // 10 * major + minor, as in sm_90
  int num_multiprocessors = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // when it was asked
};

// Rows of bytes to be copied; strides in bytes.
struct RowCopy {
  void* to = nullptr;
  int64_t to_stride = 0;
  const void* from = nullptr;
  int64_t from_stride = 0;
  int64_t row_bytes = 0;
  int64_t rows = 0;
};

// Queued work that was recorded to be repeated. Opaque; the device must outlive it.
class Recording {
 public:
  virtual ~Recording() = default;
};

// A GPU with one stream, in which everything queued runs in order, and a budget of its
// memory. No CUDA type in sight: the tests have another implementation, on the host.
// Errors of the device that come after a call was queued end the process (device_lost.h).
// Thread: one, but that several may load weights at once by Allocate, Free and Upload.
class Device {
 public:
  explicit Device(int64_t budget_bytes) : budget_bytes_(budget_bytes) {}
  virtual ~Device() = default;

  virtual const DeviceFacts& facts() const = 0;
  virtual void* stream() = 0;

  // Zeroed device memory, aligned to 256 bytes.
  // Errors: RESOURCE_EXHAUSTED with the bytes asked for, those taken and the budget; or with
  // what the device says.
  absl::StatusOr<void*> Allocate(int64_t bytes);
  void Free(void* memory, int64_t bytes);
  // Counts bytes that the device takes by itself for what is asked of it.
  // Errors: RESOURCE_EXHAUSTED as those of Allocate.
  absl::Status SetAside(int64_t bytes);
  int64_t used_bytes() const { return used_bytes_; }
  int64_t budget_bytes() const { return budget_bytes_; }

  // Host memory that the device copies from while the host goes on.
  // Errors: RESOURCE_EXHAUSTED with the bytes asked for.
  virtual absl::StatusOr<void*> AllocatePinned(int64_t bytes) = 0;
  virtual void FreePinned(void* memory) = 0;

  // Copies to the device and waits for it.
  void Upload(const RowCopy& copy);

  // Queued. What `from` of CopyToDevice holds stays as it is until the next Wait.
  virtual void CopyToDevice(const RowCopy& copy) = 0;
  virtual void CopyToHost(const RowCopy& copy) = 0;
  // Returns when all that was queued is done.
  void Wait() {
    ++num_waits_;
    WaitForStream();
  }
  int64_t num_waits() const { return num_waits_; }

  // From BeginRecording to EndRecording what is queued is recorded with the arguments it has
  // now, not run; nothing is waited for meanwhile. Replay queues all of it again.
  // Errors: what the device says; then nothing is recorded and it goes on as before.
  virtual absl::Status BeginRecording() = 0;
  virtual absl::StatusOr<std::unique_ptr<Recording>> EndRecording() = 0;
  virtual void Replay(Recording& recording) = 0;

 private:
  // Makes this the device of the calling thread.
  virtual void Enter() = 0;
  virtual void WaitForStream() = 0;
  virtual absl::StatusOr<void*> AllocateOnDevice(int64_t bytes) = 0;
  virtual void FreeOnDevice(void* memory) = 0;
  absl::Status CheckLeft(int64_t bytes) const;

  const int64_t budget_bytes_;
  std::mutex loading_;  // held by who loads weights
  int64_t used_bytes_ = 0;
  int64_t num_waits_ = 0;
};

// GPU number `index` of those this process sees. `budget_bytes`: 0 takes what is free.
// Errors: FAILED_PRECONDITION when there is no driver or one too old for this build, or when
// this build has no code for the GPU; NOT_FOUND when there are fewer GPUs; RESOURCE_EXHAUSTED when
// it takes no context of this process.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(int index, int64_t budget_bytes);

// Device memory, freed with the object. Move-only. The device must outlive it.
class DeviceMemory {
 public:
  // Errors: as Device::Allocate.
  static absl::StatusOr<DeviceMemory> Allocate(Device& device, int64_t bytes);

  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  ~DeviceMemory() {
    if (data_ != nullptr) device_->Free(data_, size_bytes_);
  }

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

// The same of pinned host memory.
class PinnedMemory {
 public:
  static absl::StatusOr<PinnedMemory> Allocate(Device& device, int64_t bytes);

  PinnedMemory() = default;
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~PinnedMemory() {
    if (data_ != nullptr) device_->FreePinned(data_);
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace sauva::cuda
