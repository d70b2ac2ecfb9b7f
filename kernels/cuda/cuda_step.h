#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scratch_bytes.h"
#include "kernels/cuda/views.h"

namespace sauva::cuda {

// A step's table in device memory, in buffers reserved once for the largest step, and what
// the host must know of it to size its launches. Two copies of the pinned side take turns,
// so that a step may be written while the one before is still being copied.
// A step in which no sequence has more than one token is padded to a bucket of rows
// (buckets.h), so that ops over it may be recorded: rows beyond the step's own belong to no
// sequence (-1), and have token and position 0.
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
  // Spans of the numerics contract up to the last position of the step; with decode_only
  // their bucket.
  int num_spans() const { return num_spans_; }
  bool decode_only() const { return decode_only_; }
  const StepLimits& limits() const { return limits_; }
  // The most rows of a step in which no sequence has more than one token.
  int max_decode_rows() const { return MostDecodeRows(limits_); }
  // The most spans a step can have.
  int max_spans() const { return MostSpans(limits_); }

 private:
  struct Padding {
    int size = 0;  // of the list with its padding
    int32_t value = 0;
  };
  void Copy(std::span<const int32_t> from, const int32_t* to, Padding padding);

  Device* device_ = nullptr;
  StepLimits limits_;
  DeviceMemory memory_;
  std::array<PinnedMemory, 2> pinned_;
  int turn_ = 0;
  std::array<int64_t, 2> waits_before_ = {-1, -1};  // the device's, when a turn was written
  StepView view_;
  std::vector<const int32_t*> block_tables_;  // by KV group
  int num_spans_ = 1;
  bool decode_only_ = false;
};

}  // namespace sauva::cuda
