#include "engine/step_arrays.h"

#include <algorithm>

namespace sauva {

StepArrays::StepArrays(const StepLimits& limits) : limits_(limits) {
  const auto tokens = static_cast<size_t>(limits.max_tokens);
  const auto sequences = static_cast<size_t>(limits.max_sequences);
  for (std::vector<int32_t>* list : {&token_ids_, &positions_, &sequence_rows_}) {
    list->reserve(tokens);
  }
  first_tokens_.reserve(sequences + 1);
  sampled_rows_.reserve(sequences);
  const size_t blocks = sequences * static_cast<size_t>(limits.max_blocks_per_sequence);
  block_tables_.assign(static_cast<size_t>(limits.num_kv_groups), std::vector<int32_t>(blocks));
  table_.block_tables.resize(block_tables_.size());
}

const StepTable& StepArrays::Fill(const StepHeader& header, const StageSequences& sequences) {
  for (std::vector<int32_t>* list :
       {&token_ids_, &positions_, &sequence_rows_, &first_tokens_, &sampled_rows_}) {
    list->clear();
  }
  const auto max_blocks = static_cast<long>(limits_.max_blocks_per_sequence);
  int32_t row = 0;
  for (const SequenceStep& step : header.sequences) {
    const StageSequence& sequence = sequences.Get(step.id);
    first_tokens_.push_back(static_cast<int32_t>(positions_.size()));
    for (size_t i = 0; i < step.tokens.size(); ++i) {
      token_ids_.push_back(step.tokens[i]);
      positions_.push_back(step.first_position + static_cast<int32_t>(i));
      sequence_rows_.push_back(row);
    }
    if (step.want == StepWant::kSample) sampled_rows_.push_back(num_tokens() - 1);
    for (size_t group = 0; group < block_tables_.size(); ++group) {
      std::copy(sequence.tables[group].begin(), sequence.tables[group].end(),
                block_tables_[group].begin() + row * max_blocks);
    }
    ++row;
  }
  first_tokens_.push_back(static_cast<int32_t>(positions_.size()));
  table_.token_ids = token_ids_;
  table_.positions = positions_;
  table_.sequence_rows = sequence_rows_;
  table_.first_tokens = first_tokens_;
  table_.sampled_rows = sampled_rows_;
  for (size_t group = 0; group < block_tables_.size(); ++group) {
    table_.block_tables[group] = {block_tables_[group].data(),
                                  static_cast<size_t>(row * max_blocks)};
  }
  return table_;
}

}  // namespace sauva
