// The promise of same_answer_test with trained weights: models/prose and its golden prompts.
#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"

namespace sauva {
namespace {

constexpr int kNewTokens = 64;
constexpr int kNumPrompts = 16;

const Model& Prose() {
  static const Model model = OpenOrDie(std::string(SAUVA_SOURCE_DIR) + "/models/prose");
  return model;
}

// Prompt `index` of the golden ones, the first again after the last.
std::vector<TokenId> Prompt(int index) {
  static const auto golden = [] {
    std::ifstream file(GoldenPath("prose_greedy.json"));
    return nlohmann::json::parse(file);
  }();
  const auto& cases = golden["cases"];
  return cases[static_cast<size_t>(index) % cases.size()]["prompt_ids"];
}

NewSequence Text(int index, float temperature) {
  NewSequence sequence = Continue(Prompt(index), kNewTokens);
  sequence.sampling.temperature = temperature;
  sequence.sampling.seed = static_cast<uint64_t>(index);
  sequence.sampling.logprobs = 20;
  return sequence;
}

using Completions = std::vector<LocalPipeline::Completion>;

Completions Ask(const LocalPipeline::BackendFactory& factory, const LocalPipelineOptions& options,
                std::vector<NewSequence> sequences) {
  auto pipeline = LocalPipeline::Create(Prose().spec, *Prose().checkpoint, factory, options);
  EXPECT_TRUE(pipeline.ok()) << pipeline.status();
  auto completions = (*pipeline)->Generate(std::move(sequences));
  EXPECT_TRUE(completions.ok()) << completions.status();
  EXPECT_EQ((*pipeline)->num_stages(), options.num_stages);
  EXPECT_GE((*pipeline)->num_steps(), 15u);
  return *std::move(completions);
}

class ProseSameAnswerTest : public testing::TestWithParam<float> {
 protected:
  static std::vector<NewSequence> Texts(int count) {
    std::vector<NewSequence> sequences;
    for (int i = 0; i < count; ++i) sequences.push_back(Text(i, GetParam()));
    return sequences;
  }

  // Each text alone, in one stage and one thread.
  static const Completions& Truth() {
    static std::map<float, Completions> truths;
    Completions& truth = truths[GetParam()];
    for (int i = static_cast<int>(truth.size()); i < kNumPrompts; ++i) {
      truth.push_back(Ask(CpuFactory(1, InstructionSet::kAuto), {}, {Text(i, GetParam())})[0]);
    }
    return truth;
  }

  static void ExpectTruth(const Completions& completions) {
    for (size_t i = 0; i < completions.size(); ++i) {
      EXPECT_EQ(completions[i].tokens, Truth()[i].tokens) << "prompt " << i;
      EXPECT_TRUE(completions[i].logprobs == Truth()[i].logprobs) << "prompt " << i;
    }
  }
};

TEST_P(ProseSameAnswerTest, TheTruthIsWorthComparing) {
  std::set<TokenId> distinct;
  for (const auto& completion : Truth()) {
    EXPECT_EQ(completion.tokens.size(), static_cast<size_t>(kNewTokens));
    distinct.insert(completion.tokens.begin(), completion.tokens.end());
  }
  EXPECT_GE(distinct.size(), 40u);
}

TEST_P(ProseSameAnswerTest, OverStagesWithFifteenOthersAndOneThreadOrTwo) {
  struct Split {
    int stages;
    int threads;
  };
  for (const Split split : {Split{1, 2}, Split{2, 1}, Split{3, 2}, Split{5, 1}}) {
    SCOPED_TRACE(testing::Message() << split.stages << " stages, " << split.threads << " threads");
    ExpectTruth(Ask(CpuFactory(split.threads, InstructionSet::kAuto),
                    {.num_stages = split.stages, .max_step_tokens = 100}, Texts(kNumPrompts)));
  }
}

TEST_P(ProseSameAnswerTest, WithEveryInstructionSetAndTheReference) {
  const auto few = [] {
    std::vector<NewSequence> sequences = Texts(3);
    sequences.erase(sequences.begin());  // the longest; the plain backends are slow
    for (NewSequence& sequence : sequences) sequence.sampling.max_tokens = 16;
    return sequences;
  };
  std::vector<LocalPipeline::BackendFactory> factories = {ReferenceFactory()};
  for (const InstructionSet isa : SupportedInstructionSets()) {
    factories.push_back(CpuFactory(2, isa));
  }
  for (const auto& factory : factories) {
    const Completions completions = Ask(factory, {}, few());
    for (size_t i = 0; i < completions.size(); ++i) {
      const auto& truth = Truth()[i + 1];
      EXPECT_TRUE(std::equal(completions[i].tokens.begin(), completions[i].tokens.end(),
                             truth.tokens.begin()));
      EXPECT_TRUE(std::equal(completions[i].logprobs.begin(), completions[i].logprobs.end(),
                             truth.logprobs.begin()));
    }
  }
}

TEST_P(ProseSameAnswerTest, WhenSequencesArePreempted) {
  ExpectTruth(Ask(CpuFactory(2, InstructionSet::kAuto),
                  {.num_stages = 3, .num_kv_blocks = 40, .prefix_cache = false},
                  Texts(kNumPrompts)));
}

INSTANTIATE_TEST_SUITE_P(Temperatures, ProseSameAnswerTest, testing::Values(0.0f, 1.0f),
                         [](const auto& test) { return test.param == 0 ? "Greedy" : "Sampled"; });

}  // namespace
}  // namespace sauva
