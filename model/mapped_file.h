#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace sauva {

// A whole regular file mapped read-only; unmapped on destruction. Opening reads no page:
// the kernel brings bytes in when they are touched.
// The file must not be truncated while mapped (the kernel would end the process).
// Thread: const methods are safe from any thread.
class MappedFile {
 public:
  // Errors: NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (not a regular file), each
  // naming the path.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Gives the pages read so far back to the kernel; touching bytes reads them again.
  void DropPages() const;

  // Empty for an empty file.
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace sauva
