#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sauva {

// Pages of host memory of their own: zero at first, at least 64-byte aligned, in huge
// pages where the system has them. Move-only.
class HostMemory {
 public:
  // Errors: INVALID_ARGUMENT for a negative size, RESOURCE_EXHAUSTED with the bytes asked for.
  static absl::StatusOr<HostMemory> Allocate(int64_t bytes);

  HostMemory() = default;
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;
  ~HostMemory();

  std::byte* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }

  // The memory as values of type T, as many as fit.
  template <class T>
  std::span<T> as() const {
    return {reinterpret_cast<T*>(data_), static_cast<size_t>(size_bytes_) / sizeof(T)};
  }

 private:
  std::byte* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

// Buffer of the host backends.
absl::StatusOr<std::unique_ptr<Buffer>> AllocateHostBuffer(int64_t bytes);

}  // namespace sauva
