// Values made by Hugging Face transformers (tools/make_goldens.py) and by llama2.c.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <tuple>

#include "gtest/gtest.h"
#include "model/tokenizer.h"
#include "tests/engine/engine_testing.h"

namespace sauva {
namespace {

std::string ProsePath() { return std::string(SAUVA_SOURCE_DIR) + "/models/prose"; }

// The largest difference, relative to the largest expected magnitude.
double RelativeError(const std::vector<float>& found, const float* expected) {
  double worst = 0;
  double largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    worst = std::max(worst, std::fabs(double{found[i]} - expected[i]));
    largest = std::max(largest, std::fabs(double{expected[i]}));
  }
  return worst / largest;
}

struct GoldenModel {
  const char* name;  // of the fixture
  std::string directory;
};

std::string FixtureOf(const GoldenModel& model) {
  return GoldenPath(std::string(model.name) + "_logits.safetensors");
}

class GoldenLogitsTest
    : public testing::TestWithParam<std::tuple<GoldenModel, LocalPipeline::BackendFactory>> {};

TEST_P(GoldenLogitsTest, LogitsAreThoseOfTransformers) {
  const auto& [golden, factory] = GetParam();
  const Model model = OpenOrDie(golden.directory);
  auto fixture = ReadFixture(FixtureOf(golden));
  const std::vector<int64_t>& ids = fixture["input_ids"].integers;
  const std::vector<int64_t>& positions = fixture["positions"].integers;
  ASSERT_FALSE(positions.empty());
  std::vector<std::vector<float>> logits;
  auto recording = [&, make = factory]() -> absl::StatusOr<std::unique_ptr<Backend>> {
    auto backend = make();
    if (!backend.ok()) return backend.status();
    return RecordLogits(*std::move(backend), logits);
  };
  auto pipeline =
      LocalPipeline::Create(model.spec, *model.checkpoint, recording, {.prefix_cache = false});
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  for (size_t i = 0; i < positions.size(); ++i) {
    logits.clear();
    const std::vector<TokenId> prompt(ids.begin(), ids.begin() + positions[i] + 1);
    const auto completions = (*pipeline)->Generate({Continue(prompt, 1)});
    ASSERT_TRUE(completions.ok()) << completions.status();
    ASSERT_EQ(logits.size(), 1u);
    ASSERT_EQ(logits[0].size(), static_cast<size_t>(model.spec.vocab_size));
    const float* expected = fixture["logits"].values.data() + i * logits[0].size();
    EXPECT_LT(RelativeError(logits[0], expected), 1e-5) << "position " << positions[i];
  }
}

TEST_P(GoldenLogitsTest, HiddenStatesBetweenLayersAreThoseOfTransformers) {
  const auto& [golden, factory] = GetParam();
  const Model model = OpenOrDie(golden.directory);
  auto fixture = ReadFixture(FixtureOf(golden));
  const std::vector<int64_t>& ids = fixture["input_ids"].integers;
  const auto size = static_cast<size_t>(model.spec.hidden_size);
  OpenSequence open{.id = 1, .tokens = {ids.begin(), ids.end()}, .num_prompt_tokens = 1};
  SequenceStep step{.id = 1, .tokens = open.tokens};
  BlockDelta delta;
  for (BlockId i = 0; i * kKvBlockTokens < static_cast<int>(ids.size()); ++i) {
    delta.appended.push_back(i);
  }
  step.blocks.push_back(delta);
  const StepHeader header{.step_id = 1, .sequences = {step}};
  std::vector<float> hidden;
  for (int layer = 0; layer + 1 < model.spec.num_layers(); ++layer) {
    auto backend = factory();
    ASSERT_TRUE(backend.ok()) << backend.status();
    auto stage =
        Stage::Load(**backend, model.spec, *model.checkpoint,
                    {.layers = {layer, layer + 1}, .first = layer == 0, .last = false}, {});
    ASSERT_TRUE(stage.ok()) << stage.status();
    ASSERT_TRUE((*stage)->AllocateKv(64).ok());
    ASSERT_TRUE((*stage)->Open(open).ok());
    StageOutput output;
    const absl::Status status = (*stage)->RunStep(header, hidden, output);
    ASSERT_TRUE(status.ok()) << status;
    hidden = output.hidden;
    const std::vector<float> last(hidden.end() - static_cast<long>(size), hidden.end());
    const float* expected =
        fixture["last_position_hidden"].values.data() + static_cast<size_t>(layer + 1) * size;
    EXPECT_LT(RelativeError(last, expected), 1e-5) << "after layer " << layer;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GoldenLogitsTest,
    testing::Combine(testing::Values(GoldenModel{"tiny_llama", GoldenPath("tiny_llama")},
                                     GoldenModel{"tiny_llama3_rope",
                                                 GoldenPath("tiny_llama3_rope")},
                                     GoldenModel{"prose", ProsePath()}),
                     testing::Values(ReferenceFactory(), CpuFactory(2, InstructionSet::kAuto))),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) + (test.index % 2 == 0 ? "Ref" : "Cpu");
    });

TEST(GoldenTokensTest, GreedyContinuationsOfProseAreThoseOfTransformers) {
  std::ifstream file(GoldenPath("prose_greedy.json"));
  ASSERT_TRUE(file.good());
  const auto golden = nlohmann::json::parse(file);
  const Model model = OpenOrDie(ProsePath());
  auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint,
                                        CpuFactory(0, InstructionSet::kAuto), {});
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  const int count = golden["new_tokens"];
  std::vector<NewSequence> sequences;
  for (const auto& golden_case : golden["cases"]) {
    sequences.push_back(Continue(golden_case["prompt_ids"].get<std::vector<TokenId>>(), count));
  }
  ASSERT_EQ(sequences.size(), 10u);
  const auto completions = (*pipeline)->Generate(std::move(sequences));
  ASSERT_TRUE(completions.ok()) << completions.status();
  std::set<TokenId> distinct;
  for (size_t i = 0; i < completions->size(); ++i) {
    const auto expected = golden["cases"][i]["generated_ids"].get<std::vector<TokenId>>();
    EXPECT_EQ((*completions)[i].tokens, expected) << "prompt " << i;
    distinct.insert(expected.begin(), expected.end());
  }
  EXPECT_GE(distinct.size(), 40u);
}

TEST(GoldenTokensTest, Stories260KTellsItsPublishedStory) {
  const char* shared = std::getenv("SAUVA_SHARED_DATA");
  if (shared == nullptr) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set";
  const std::string directory = std::string(shared) + "/weights/stories260K";
  if (!std::filesystem::exists(directory)) GTEST_SKIP() << directory << " is not there";
  const Model model = OpenOrDie(directory);
  std::ifstream file(directory + "/greedy.txt");
  std::stringstream text;
  text << file.rdbuf();
  auto tokenizer = MakeTokenizer(model.files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint,
                                        CpuFactory(0, InstructionSet::kAuto), {});
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  ASSERT_TRUE(model.spec.bos_token.has_value());
  const auto completions = (*pipeline)->Generate({Continue({*model.spec.bos_token}, 256)});
  ASSERT_TRUE(completions.ok()) << completions.status();
  const auto told = (*tokenizer)->Decode((*completions)[0].tokens);
  ASSERT_TRUE(told.ok()) << told.status();
  // The file ends where llama2.c stopped, with a line end of the shell.
  std::string expected = text.str();
  while (!expected.empty() && expected.back() == '\n') expected.pop_back();
  ASSERT_GT(expected.size(), 500u);
  EXPECT_EQ(told->substr(0, expected.size()), expected);
}

}  // namespace
}  // namespace sauva
