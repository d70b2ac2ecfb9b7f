#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/host_memory.h"

namespace sauva {

// RopeTable of the host backends: cos and sin of float(position) * frequency, rounded to
// float from double.
class HostRopeTable : public RopeTable {
 public:
  // Errors: INVALID_ARGUMENT for an empty shape, RESOURCE_EXHAUSTED with the bytes.
  static absl::StatusOr<std::unique_ptr<RopeTable>> Create(const RopeShape& shape);

  int pairs() const { return pairs_; }  // half the rotary dims
  int max_positions() const { return max_positions_; }
  bool interleaved() const { return interleaved_; }
  const float* cos(int position) const { return values_.as<float>().data() + Offset(position); }
  const float* sin(int position) const { return cos(position) + pairs_; }

 private:
  HostRopeTable(const RopeShape& shape, HostMemory values);
  int64_t Offset(int position) const { return int64_t{position} * 2 * pairs_; }

  const int pairs_;
  const int max_positions_;
  const bool interleaved_;
  const HostMemory values_;  // [max_positions, 2, pairs]
};

}  // namespace sauva
