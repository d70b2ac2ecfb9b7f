#pragma once

#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "engine/stage.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva::testing {

// Decodes kSequences texts with sampling of every kind over two stages, step by step; what
// they are told is made before a step is run.
class Decoding {
 public:
  static constexpr int kSequences = 4;
  static constexpr int kPromptTokens = 15;

  Decoding(const LocalPipeline::BackendFactory& factory, LoadFormat weights, DType kv_type)
      : model_(OpenOrDie(WriteTinyCheckpoint("decoding", {.num_layers = 4}))) {
    for (const int first : {0, 2}) {
      backends_.push_back(*factory());
      auto stage = Stage::Load(*backends_.back(), model_.spec, *model_.checkpoint,
                               {.layers = {first, first + 2},
                                .first = first == 0,
                                .last = first == 2,
                                .weight_format = weights,
                                .kv_type = kv_type,
                                .max_sequences = kSequences},
                               {});
      EXPECT_TRUE(stage.ok()) << stage.status();
      stages_.push_back(*std::move(stage));
    }
    outputs_.resize(stages_.size());
    Restart(kSequences * 8);
  }

  // Begins the texts anew in a KV cache of `num_blocks` blocks, at least kSequences * 8.
  void Restart(int num_blocks) {
    for (auto& stage : stages_) EXPECT_TRUE(stage->AllocateKv(num_blocks).ok());
    for (SequenceId id = 0; id < kSequences; ++id) Open(id);
  }

  // Tokens known to all sequences before the step are `position`; decodes one each, or the
  // whole prompt at position 0.
  void Prepare(int position) {
    header_.sequences.clear();
    ++header_.step_id;
    for (SequenceId id = 0; id < kSequences; ++id) {
      SequenceStep step{.id = id, .first_position = position, .want = StepWant::kSample};
      step.tokens.assign(position == 0 ? kPromptTokens : 1, 65);
      if (position % kKvBlockTokens == 0) {
        const BlockId block = static_cast<BlockId>(id) * 8 + position / kKvBlockTokens;
        step.blocks.push_back({.kv_group = 0, .appended = {block}});
      }
      header_.sequences.push_back(step);
    }
  }

  void Run() {
    std::span<const float> hidden;
    for (size_t i = 0; i < stages_.size(); ++i) {
      const absl::Status status = stages_[i]->RunStep(header_, hidden, outputs_[i]);
      if (!status.ok()) std::abort();
      hidden = outputs_[i].hidden;
    }
  }

  // Of the step that ran last.
  const std::vector<SampledToken>& sampled() const { return outputs_.back().sampled; }

 private:
  void Open(SequenceId id) {
    OpenSequence open{.id = id, .seed = id, .num_prompt_tokens = kPromptTokens};
    open.tokens.assign(kPromptTokens, 65);
    open.sampling.temperature = id % 2 == 0 ? 0.0f : 1.0f;
    open.sampling.top_k = id == 1 ? 20 : 0;
    open.sampling.top_p = id == 3 ? 0.9f : 1.0f;
    open.sampling.repetition_penalty = 1.1f;
    open.sampling.logprobs = 5;
    open.sampling.logit_bias = {{.token = 3, .bias = 1.0f}};
    for (auto& stage : stages_) EXPECT_TRUE(stage->Open(open).ok());
  }

  Model model_;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::unique_ptr<Stage>> stages_;
  std::vector<StageOutput> outputs_;
  StepHeader header_;
};

}  // namespace sauva::testing
