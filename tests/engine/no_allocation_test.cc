// A decode step in steady state takes no heap memory.
#include "engine/stage.h"
#include "gtest/gtest.h"
#include "tests/engine/counting_new.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

constexpr int kSequences = 4;
constexpr int kPromptTokens = 15;

struct Setup {
  int threads = 1;
  LoadFormat weights = LoadFormat::kStored;
  DType kv_type = DType::kF32;
};

// Decodes kSequences texts over two stages; every step's headers are made beforehand.
class Decoding {
 public:
  Decoding(const LocalPipeline::BackendFactory& factory, const Setup& setup)
      : model_(OpenOrDie(WriteTinyCheckpoint("no_allocation", {.num_layers = 4}))) {
    for (const int first : {0, 2}) {
      backends_.push_back(*factory());
      auto stage = Stage::Load(*backends_.back(), model_.spec, *model_.checkpoint,
                               {.layers = {first, first + 2},
                                .first = first == 0,
                                .last = first == 2,
                                .weight_format = setup.weights,
                                .kv_type = setup.kv_type,
                                .max_sequences = kSequences},
                               {});
      EXPECT_TRUE(stage.ok()) << stage.status();
      EXPECT_TRUE((*stage)->AllocateKv(kSequences * 8).ok());
      stages_.push_back(*std::move(stage));
    }
    outputs_.resize(stages_.size());
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

  size_t num_sampled() const { return outputs_.back().sampled.size(); }

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

class NoAllocationTest : public testing::TestWithParam<Setup> {};

TEST_P(NoAllocationTest, ADecodeStepTakesNoHeapMemory) {
  Decoding decoding(CpuFactory(GetParam().threads, InstructionSet::kAuto), GetParam());
  decoding.Prepare(0);
  decoding.Run();
  int64_t counted = 0;
  for (int position = kPromptTokens; position < 100; ++position) {
    decoding.Prepare(position);
    const int64_t before = NumAllocations();
    decoding.Run();
    // The first decode step may still grow what keeps its size afterwards.
    if (position > kPromptTokens) counted += NumAllocations() - before;
  }
  EXPECT_EQ(decoding.num_sampled(), static_cast<size_t>(kSequences));
  EXPECT_EQ(counted, 0);
  const int64_t before = NumAllocations();
  ::operator delete(::operator new(1));
  EXPECT_EQ(NumAllocations() - before, 1) << "the count counts";
}

INSTANTIATE_TEST_SUITE_P(
    Setups, NoAllocationTest,
    testing::Values(Setup{}, Setup{.threads = 2},
                    Setup{.threads = 2, .weights = LoadFormat::kInt8, .kv_type = DType::kI8},
                    Setup{.threads = 2, .weights = LoadFormat::kInt4, .kv_type = DType::kF16},
                    Setup{.threads = 2, .weights = LoadFormat::kInt3},
                    Setup{.threads = 2, .weights = LoadFormat::kNf4, .kv_type = DType::kI8}));

}  // namespace
}  // namespace sauva
