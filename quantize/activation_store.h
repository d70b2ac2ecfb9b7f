#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sauva {

// The residual stream of every calibration sample between two layers or sublayers: in memory up to
// a bound, else in a file without a name, which disappears with the process.
class ActivationStore {
 public:
  struct Shape {
    int64_t samples = 0;
    int64_t values = 0;  // of a sample: tokens * hidden_size
  };
  // Errors: RESOURCE_EXHAUSTED naming the directory and the bytes when there is no room.
  static absl::StatusOr<ActivationStore> Create(const std::string& directory, Shape shape,
                                                int64_t memory_bytes);
  ActivationStore(ActivationStore&& other) noexcept;
  ActivationStore& operator=(ActivationStore&& other) = delete;
  ~ActivationStore();

  absl::Status Read(int64_t sample, std::span<float> values) const;
  absl::Status Write(int64_t sample, std::span<const float> values);
  bool on_disk() const { return file_ >= 0; }

 private:
  explicit ActivationStore(Shape shape) : shape_(shape) {}

  Shape shape_;
  int file_ = -1;
  std::vector<float> memory_;
};

}  // namespace sauva
