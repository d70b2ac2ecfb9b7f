#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace sauva {

// The host's copy of one step's table, in memory reserved once for the largest step.
// Thread: the step thread writes it; during an op any thread reads it.
class StepBuffer {
 public:
  void Reserve(const StepLimits& limits);
  void Upload(const StepTable& step);

  const StepLimits& limits() const { return limits_; }
  std::span<const int32_t> token_ids() const { return token_ids_; }
  std::span<const int32_t> positions() const { return positions_; }
  std::span<const int32_t> sequence_rows() const { return sequence_rows_; }
  std::span<const int32_t> first_tokens() const { return first_tokens_; }
  std::span<const int32_t> sampled_rows() const { return sampled_rows_; }
  int num_sequences() const { return static_cast<int>(first_tokens_.size()) - 1; }

  // The block ids of one sequence in a KV group, first block of the sequence first.
  const int32_t* blocks(int kv_group, int sequence_row) const {
    return block_tables_[static_cast<size_t>(kv_group)].data() +
           int64_t{sequence_row} * limits_.max_blocks_per_sequence;
  }

 private:
  StepLimits limits_;
  std::vector<int32_t> token_ids_, positions_, sequence_rows_, first_tokens_, sampled_rows_;
  std::vector<std::vector<int32_t>> block_tables_;
};

}  // namespace sauva
