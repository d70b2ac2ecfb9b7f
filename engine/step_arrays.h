#pragma once

#include <cstdint>
#include <vector>

#include "engine/stage_sequences.h"
#include "kernels/backend.h"
#include "proto/stage.h"

namespace sauva {

// The arrays of a StepTable, reserved once for the largest step and filled for each.
class StepArrays {
 public:
  explicit StepArrays(const StepLimits& limits);

  // Fills the table of a step that `sequences` has applied. Valid until the next call.
  // Allocates nothing.
  const StepTable& Fill(const StepHeader& header, const StageSequences& sequences);

  int num_tokens() const { return static_cast<int>(positions_.size()); }
  // Of the sequence's tokens within the step's rows.
  int first_row(size_t sequence) const { return first_tokens_[sequence]; }

 private:
  const StepLimits limits_;
  std::vector<int32_t> token_ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> sequence_rows_;
  std::vector<int32_t> first_tokens_;
  std::vector<int32_t> sampled_rows_;
  std::vector<std::vector<int32_t>> block_tables_;  // [group][sequence, max_blocks]
  StepTable table_;
};

}  // namespace sauva
