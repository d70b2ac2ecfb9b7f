// A sequence's tokens and logits do not depend on how they were computed: bit for bit.
#include <set>
#include <tuple>

#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

// Tokens and the log-probabilities of the likeliest 20: what logits leave behind.
struct Answer {
  std::vector<TokenId> tokens;
  std::vector<TokenLogprobs> logprobs;
  bool operator==(const Answer&) const = default;
};

const Model& TestModel() {
  static const Model model = OpenOrDie(WriteTinyCheckpoint("same_answer", {.hidden_size = 64,
                                                                           .intermediate_size = 100,
                                                                           .num_layers = 5,
                                                                           .num_heads = 4,
                                                                           .num_kv_heads = 2,
                                                                           .head_dim = 16,
                                                                           .max_context = 640,
                                                                           .dtype = DType::kF16}));
  return model;
}

constexpr int kNewTokens = 24;
constexpr int kNumTexts = 16;

// Text `index` of the batch: greedy for even ones, sampled with penalties for odd ones.
NewSequence Text(int index) {
  const int sizes[] = {1, 15, 16, 17, 31, 33, 64, 100};
  const int size = index == 3 ? 530 : sizes[index % 8];  // one beyond an attention span
  NewSequence sequence =
      Continue(RandomTokens(size, 256, static_cast<uint64_t>(index)), kNewTokens);
  sequence.sampling.logprobs = 20;
  sequence.sampling.seed = static_cast<uint64_t>(1000 + index);
  if (index % 2 == 1) {
    sequence.sampling.temperature = 1;
    sequence.sampling.top_p = 0.95f;
    sequence.sampling.repetition_penalty = 1.1f;
    sequence.sampling.frequency_penalty = 0.2f;
  }
  return sequence;
}

std::vector<Answer> Ask(const LocalPipeline::BackendFactory& factory,
                        const LocalPipelineOptions& options, std::vector<NewSequence> sequences,
                        std::function<void(const Scheduler&)> look = {}) {
  const Model& model = TestModel();
  auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint, factory, options);
  EXPECT_TRUE(pipeline.ok()) << pipeline.status();
  const auto completions = (*pipeline)->Generate(std::move(sequences));
  EXPECT_TRUE(completions.ok()) << completions.status();
  EXPECT_EQ((*pipeline)->num_stages(), options.num_stages);
  EXPECT_GT((*pipeline)->num_steps(), 0u);
  if (look) look((*pipeline)->scheduler());
  std::vector<Answer> answers;
  for (const auto& completion : *completions) {
    answers.push_back({completion.tokens, completion.logprobs});
  }
  return answers;
}

std::vector<NewSequence> AllTexts() {
  std::vector<NewSequence> sequences;
  for (int i = 0; i < kNumTexts; ++i) sequences.push_back(Text(i));
  return sequences;
}

// Every text alone, one stage, one thread, the plainest backend.
const std::vector<Answer>& Truth() {
  static const std::vector<Answer> truth = [] {
    std::vector<Answer> answers;
    for (int i = 0; i < kNumTexts; ++i) {
      answers.push_back(Ask(ReferenceFactory(), {}, {Text(i)})[0]);
    }
    return answers;
  }();
  return truth;
}

void ExpectTruth(const std::vector<Answer>& answers) {
  ASSERT_EQ(answers.size(), Truth().size());
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, Truth()[i].tokens) << "text " << i;
    EXPECT_TRUE(answers[i].logprobs == Truth()[i].logprobs) << "text " << i;
  }
}

LocalPipeline::BackendFactory Fast() { return CpuFactory(1, InstructionSet::kAuto); }

TEST(SameAnswerTest, TheTruthIsWorthComparing) {
  std::set<TokenId> distinct;
  for (const Answer& answer : Truth()) {
    EXPECT_EQ(answer.tokens.size(), static_cast<size_t>(kNewTokens));
    EXPECT_EQ(answer.logprobs.size(), static_cast<size_t>(kNewTokens));
    distinct.insert(answer.tokens.begin(), answer.tokens.end());
  }
  EXPECT_GE(distinct.size(), 40u);
}

TEST(SameAnswerTest, AloneOrWithFifteenOthers) { ExpectTruth(Ask(Fast(), {}, AllTexts())); }

TEST(SameAnswerTest, OverAnyNumberOfStages) {
  for (const int stages : {1, 2, 3, 5}) {
    SCOPED_TRACE(stages);
    ExpectTruth(Ask(Fast(), {.num_stages = stages}, AllTexts()));
  }
}

TEST(SameAnswerTest, WithAnyChunkSize) {
  for (const int tokens : {1, 7, 16, 64, 513}) {
    SCOPED_TRACE(tokens);
    ExpectTruth(Ask(Fast(), {.max_step_tokens = tokens}, AllTexts()));
  }
}

TEST(SameAnswerTest, WithOneThreadOrTwo) {
  ExpectTruth(Ask(CpuFactory(2, InstructionSet::kAuto), {}, AllTexts()));
}

TEST(SameAnswerTest, WithEveryInstructionSet) {
  for (const InstructionSet isa : SupportedInstructionSets()) {
    SCOPED_TRACE(Name(isa));
    ExpectTruth(Ask(CpuFactory(1, isa), {.num_stages = 2}, AllTexts()));
  }
}

TEST(SameAnswerTest, WhenSequencesArePreempted) {
  uint64_t preemptions = 0;
  ExpectTruth(Ask(Fast(), {.num_stages = 2, .num_kv_blocks = 36, .prefix_cache = false}, AllTexts(),
                  [&](const Scheduler& scheduler) { preemptions = scheduler.num_preemptions(); }));
  EXPECT_GT(preemptions, 0u);
}

TEST(SameAnswerTest, WithOrWithoutThePrefixCache) {
  const Model& model = TestModel();
  for (const bool prefix_cache : {false, true}) {
    auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint, Fast(),
                                          {.num_stages = 2, .prefix_cache = prefix_cache});
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    int cached = 0;
    for (int round = 0; round < 2; ++round) {
      const auto completions = (*pipeline)->Generate(AllTexts());
      ASSERT_TRUE(completions.ok()) << completions.status();
      for (size_t i = 0; i < completions->size(); ++i) {
        const auto& completion = (*completions)[i];
        EXPECT_TRUE((Answer{completion.tokens, completion.logprobs}) == Truth()[i]) << i;
        cached += completion.num_cached_tokens;
      }
    }
    EXPECT_EQ(cached > 0, prefix_cache);
  }
}

TEST(SameAnswerTest, SamplesOfOnePromptShareItAndDiffer) {
  std::vector<NewSequence> samples;
  for (uint32_t i = 0; i < 4; ++i) {
    samples.push_back(Text(7));
    samples.back().sample_index = i;
  }
  const std::vector<Answer> together = Ask(Fast(), {}, samples);
  std::set<std::vector<TokenId>> distinct;
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_TRUE(together[i] == Ask(Fast(), {}, {samples[i]})[0]) << i;
    distinct.insert(together[i].tokens);
  }
  EXPECT_EQ(distinct.size(), 4u);
}

TEST(SameAnswerTest, WhenItIsResumedAnywhere) {
  for (const int index : {2, 5}) {
    for (const int done : {1, 10, kNewTokens - 1}) {
      NewSequence sequence = Text(index);
      const Answer& truth = Truth()[static_cast<size_t>(index)];
      sequence.resumed = {truth.tokens.begin(), truth.tokens.begin() + done};
      const Answer rest = Ask(Fast(), {}, {sequence})[0];
      EXPECT_EQ(rest.tokens, std::vector<TokenId>(truth.tokens.begin() + done, truth.tokens.end()));
    }
  }
}

class CompressedTest : public testing::TestWithParam<DType> {};

TEST_P(CompressedTest, Int8WeightsAndASmallerCacheHoldTheSamePromise) {
  const LocalPipelineOptions options = {.weight_format = LoadFormat::kInt8, .kv_type = GetParam()};
  const std::vector<Answer> truth = Ask(ReferenceFactory(), options, AllTexts());
  EXPECT_FALSE(truth == Truth()) << "int8 is another arithmetic";
  LocalPipelineOptions split = options;
  split.num_stages = 3;
  split.max_step_tokens = 33;
  for (const InstructionSet isa : SupportedInstructionSets()) {
    EXPECT_TRUE(Ask(CpuFactory(2, isa), split, AllTexts()) == truth) << Name(isa);
  }
}

INSTANTIATE_TEST_SUITE_P(KvTypes, CompressedTest, testing::Values(DType::kF16, DType::kI8),
                         [](const auto& test) { return std::string(Name(test.param)); });

}  // namespace
}  // namespace sauva
