#include "kernels/step_buffer.h"

#include "base/check.h"

namespace sauva {
namespace {

void Copy(std::span<const int32_t> from, std::vector<int32_t>& to) {
  Check(from.size() <= to.capacity(), "a step keeps the limits it was reserved with");
  to.assign(from.begin(), from.end());
}

}  // namespace

void StepBuffer::Reserve(const StepLimits& limits) {
  Check(limits.max_tokens > 0 && limits.max_sequences > 0 && limits.max_blocks_per_sequence >= 0 &&
            limits.num_kv_groups >= 0,
        "step limits are positive");
  limits_ = limits;
  const auto tokens = static_cast<size_t>(limits.max_tokens);
  const auto sequences = static_cast<size_t>(limits.max_sequences);
  for (std::vector<int32_t>* list : {&token_ids_, &positions_, &sequence_rows_}) {
    list->reserve(tokens);
  }
  first_tokens_.reserve(sequences + 1);
  first_tokens_.assign(1, 0);
  sampled_rows_.reserve(sequences);
  block_tables_.resize(static_cast<size_t>(limits.num_kv_groups));
  for (std::vector<int32_t>& table : block_tables_) {
    table.reserve(sequences * static_cast<size_t>(limits.max_blocks_per_sequence));
  }
}

void StepBuffer::Upload(const StepTable& step) {
  Check(step.block_tables.size() == block_tables_.size(), "a step has every KV group");
  Copy(step.token_ids, token_ids_);
  Copy(step.positions, positions_);
  Copy(step.sequence_rows, sequence_rows_);
  Copy(step.first_tokens, first_tokens_);
  Copy(step.sampled_rows, sampled_rows_);
  for (size_t group = 0; group < block_tables_.size(); ++group) {
    Copy(step.block_tables[group], block_tables_[group]);
  }
  Check(step.positions.size() == step.sequence_rows.size(), "each token has a sequence");
  Check(!first_tokens_.empty() && first_tokens_.front() == 0 &&
            first_tokens_.back() == static_cast<int32_t>(positions_.size()),
        "first_tokens spans the step's tokens");
}

}  // namespace sauva
