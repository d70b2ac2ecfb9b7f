#include "kernels/cuda/cuda_step.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/buckets.h"
#include "kernels/numerics.h"

namespace sauva::cuda {

absl::Status CudaStep::Reserve(Device& device, const StepLimits& limits) {
  Check(limits.max_tokens > 0 && limits.max_sequences > 0 && limits.max_blocks_per_sequence >= 0 &&
            limits.num_kv_groups >= 0,
        "step limits are positive");
  device_ = &device;
  limits_ = limits;
  const int64_t tokens = limits.max_tokens;
  const int64_t sequences = limits.max_sequences;
  const int64_t table = sequences * limits.max_blocks_per_sequence;
  const int64_t bytes = StepTableBytes(limits);
  ASSIGN_OR_RETURN(memory_, DeviceMemory::Allocate(device, bytes));
  for (PinnedMemory& pinned : pinned_) {
    ASSIGN_OR_RETURN(pinned, PinnedMemory::Allocate(device, bytes));
  }
  const auto* next = memory_.as<int32_t>();
  const auto take = [&next](int64_t count) { return std::exchange(next, next + count); };
  view_ = {.token_ids = take(tokens),
           .positions = take(tokens),
           .sequence_rows = take(tokens),
           .first_tokens = take(sequences + 1),
           .sampled_rows = take(sequences)};
  block_tables_.clear();
  for (int group = 0; group < limits.num_kv_groups; ++group) block_tables_.push_back(take(table));
  return absl::OkStatus();
}

void CudaStep::Copy(std::span<const int32_t> from, const int32_t* to, Padding padding) {
  if (from.empty()) return;
  const int64_t offset = to - memory_.as<int32_t>();
  int32_t* staged = pinned_[static_cast<size_t>(turn_)].as<int32_t>() + offset;
  const int64_t size = std::max(static_cast<int64_t>(from.size()), int64_t{padding.size});
  std::copy(from.begin(), from.end(), staged);
  std::fill(staged + from.size(), staged + size, padding.value);
  device_->CopyToDevice({.to = memory_.as<int32_t>() + offset,
                         .from = staged,
                         .row_bytes = size * int64_t{sizeof(int32_t)},
                         .rows = 1});
}

void CudaStep::Upload(const StepTable& step) {
  const auto within = [](std::span<const int32_t> list, int64_t most) {
    Check(static_cast<int64_t>(list.size()) <= most,
          "a step keeps the limits it was reserved with");
  };
  within(step.positions, limits_.max_tokens);
  within(step.token_ids, limits_.max_tokens);
  within(step.sampled_rows, limits_.max_sequences);
  within(step.first_tokens, int64_t{limits_.max_sequences} + 1);
  Check(step.positions.size() == step.sequence_rows.size(), "each token has a sequence");
  Check(!step.first_tokens.empty() && step.first_tokens.front() == 0 &&
            step.first_tokens.back() == static_cast<int32_t>(step.positions.size()),
        "first_tokens spans the step's tokens");
  Check(step.block_tables.size() == block_tables_.size(), "a step has every KV group");
  // The pinned side of this turn was copied two steps ago; the device may be that far behind
  // only when nobody has waited for it since.
  turn_ = 1 - turn_;
  const auto turn = static_cast<size_t>(turn_);
  if (waits_before_[turn] == device_->num_waits()) device_->Wait();
  waits_before_[turn] = device_->num_waits();

  decode_only_ = step.positions.size() + 1 <= step.first_tokens.size();
  const int tokens = static_cast<int>(step.positions.size());
  const int rows = decode_only_ ? BucketOf(tokens, max_decode_rows()) : tokens;
  Copy(step.token_ids, view_.token_ids, {.size = rows});
  Copy(step.positions, view_.positions, {.size = rows});
  Copy(step.sequence_rows, view_.sequence_rows, {.size = rows, .value = -1});
  Copy(step.first_tokens, view_.first_tokens, {});
  Copy(step.sampled_rows, view_.sampled_rows,
       {.size = BucketOf(static_cast<int>(step.sampled_rows.size()), limits_.max_sequences)});
  for (size_t group = 0; group < block_tables_.size(); ++group) {
    within(step.block_tables[group],
           int64_t{limits_.max_sequences} * limits_.max_blocks_per_sequence);
    Copy(step.block_tables[group], block_tables_[group], {});
  }
  int32_t highest = 0;
  for (const int32_t position : step.positions) highest = std::max(highest, position);
  num_spans_ = highest / kAttentionSpan + 1;
  if (decode_only_) num_spans_ = BucketOf(num_spans_, max_spans());
}

}  // namespace sauva::cuda
