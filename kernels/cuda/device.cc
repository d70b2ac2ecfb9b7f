#include "kernels/cuda/device.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva::cuda {

absl::StatusOr<void*> Device::Allocate(int64_t bytes) {
  if (bytes <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(bytes, " bytes of device memory asked for"));
  }
  const std::lock_guard lock(loading_);
  Enter();
  RETURN_IF_ERROR(CheckLeft(bytes));
  ASSIGN_OR_RETURN(void* const memory, AllocateOnDevice(bytes));
  used_bytes_ += bytes;
  return memory;
}

absl::Status Device::SetAside(int64_t bytes) {
  RETURN_IF_ERROR(CheckLeft(bytes));
  used_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status Device::CheckLeft(int64_t bytes) const {
  if (bytes <= budget_bytes_ - used_bytes_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(bytes, " bytes of device memory asked for; ",
                                                   used_bytes_, " of a budget of ", budget_bytes_,
                                                   " are taken"));
}

void Device::Free(void* memory, int64_t bytes) {
  const std::lock_guard lock(loading_);
  Enter();
  FreeOnDevice(memory);
  used_bytes_ -= bytes;
}

void Device::Upload(const RowCopy& copy) {
  const std::lock_guard lock(loading_);
  Enter();
  CopyToDevice(copy);
  Wait();
}

absl::StatusOr<DeviceMemory> DeviceMemory::Allocate(Device& device, int64_t bytes) {
  DeviceMemory memory;
  ASSIGN_OR_RETURN(memory.data_, device.Allocate(bytes));
  memory.device_ = &device;
  memory.size_bytes_ = bytes;
  return memory;
}

absl::StatusOr<PinnedMemory> PinnedMemory::Allocate(Device& device, int64_t bytes) {
  PinnedMemory memory;
  ASSIGN_OR_RETURN(memory.data_, device.AllocatePinned(bytes));
  memory.device_ = &device;
  return memory;
}

}  // namespace sauva::cuda
