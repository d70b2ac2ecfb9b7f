#include "quantize/activation_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sauva {

absl::StatusOr<ActivationStore> ActivationStore::Create(const std::string& directory, Shape shape,
                                                        int64_t memory_bytes) {
  ActivationStore store(shape);
  const int64_t bytes = shape.samples * shape.values * int64_t{sizeof(float)};
  if (bytes <= memory_bytes) {
    store.memory_.resize(static_cast<size_t>(shape.samples * shape.values));
    return store;
  }
  std::string path = directory + "/activations-XXXXXX";
  store.file_ = ::mkstemp(path.data());
  if (store.file_ < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " cannot be made: ", std::strerror(errno)));
  }
  ::unlink(path.c_str());
  const int error = ::posix_fallocate(store.file_, 0, bytes);
  if (error != 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        directory, ": no room for ", bytes, " bytes of activations: ", std::strerror(error)));
  }
  return store;
}

ActivationStore::ActivationStore(ActivationStore&& other) noexcept
    : shape_(other.shape_),
      file_(std::exchange(other.file_, -1)),
      memory_(std::move(other.memory_)) {}

ActivationStore::~ActivationStore() {
  if (file_ >= 0) ::close(file_);
}

absl::Status ActivationStore::Read(int64_t sample, std::span<float> values) const {
  const int64_t first = sample * shape_.values;
  if (!on_disk()) {
    std::copy_n(memory_.begin() + first, values.size(), values.begin());
    return absl::OkStatus();
  }
  auto* at = reinterpret_cast<char*>(values.data());
  auto left = static_cast<ssize_t>(values.size_bytes());
  off_t offset = first * off_t{sizeof(float)};
  while (left > 0) {
    const ssize_t done = ::pread(file_, at, static_cast<size_t>(left), offset);
    if (done <= 0) return absl::DataLossError("calibration activations cannot be read back");
    at += done;
    offset += done;
    left -= done;
  }
  return absl::OkStatus();
}

absl::Status ActivationStore::Write(int64_t sample, std::span<const float> values) {
  const int64_t first = sample * shape_.values;
  if (!on_disk()) {
    std::copy(values.begin(), values.end(), memory_.begin() + first);
    return absl::OkStatus();
  }
  const auto* at = reinterpret_cast<const char*>(values.data());
  auto left = static_cast<ssize_t>(values.size_bytes());
  off_t offset = first * off_t{sizeof(float)};
  while (left > 0) {
    const ssize_t done = ::pwrite(file_, at, static_cast<size_t>(left), offset);
    if (done <= 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("calibration activations cannot be written: ", std::strerror(errno)));
    }
    at += done;
    offset += done;
    left -= done;
  }
  return absl::OkStatus();
}

}  // namespace sauva
