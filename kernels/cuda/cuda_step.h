#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/views.h"

namespace sauva::cuda {

// A step's table in device memory, in buffers reserved once for the largest step, and what
// the host must know of it to size its launches. Two copies of the pinned side take turns,
// so that a step may be written while the one before is still being copied.
// Thread: the step thread.
class CudaStep {
 public:
  // Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(Device& device, const StepLimits& limits);

  // Queues the copy; a step keeps the limits and its own invariants (Check).
  void Upload(const StepTable& step);

  const StepView& view() const { return view_; }
  BlockTableView blocks(int kv_group) const {
    return {.ids = block_tables_[static_cast<size_t>(kv_group)],
            .max_blocks = limits_.max_blocks_per_sequence};
  }
  // Spans of the numerics contract up to the last position of the step.
  int num_spans() const { return num_spans_; }
  bool decode_only() const { return decode_only_; }
  const StepLimits& limits() const { return limits_; }

 private:
  void Copy(std::span<const int32_t> from, const int32_t* to);

  Device* device_ = nullptr;
  StepLimits limits_;
  DeviceMemory memory_;
  std::array<PinnedMemory, 2> pinned_;
  int turn_ = 0;
  StepView view_;
  std::vector<const int32_t*> block_tables_;  // by KV group
  int num_spans_ = 1;
  bool decode_only_ = false;
};

}  // namespace sauva::cuda
