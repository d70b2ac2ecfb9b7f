#include "engine/local_pipeline.h"

#include <cmath>
#include <limits>

#include "engine/formats.h"
#include "engine/numerics_id.h"
#include "engine/perplexity.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

class LocalPipelineTest : public testing::Test {
 protected:
  static const Model& TestModel() {
    static const Model model = OpenOrDie(WriteTinyCheckpoint("local_pipeline", {}));
    return model;
  }

  static std::unique_ptr<LocalPipeline> Make(const LocalPipelineOptions& options) {
    auto pipeline = LocalPipeline::Create(TestModel().spec, *TestModel().checkpoint,
                                          CpuFactory(1, InstructionSet::kAuto), options);
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    return *std::move(pipeline);
  }

  static LocalPipeline::Completion One(LocalPipeline& pipeline, NewSequence sequence) {
    auto completions = pipeline.Generate({std::move(sequence)});
    EXPECT_TRUE(completions.ok()) << completions.status();
    return (*completions)[0];
  }
};

TEST_F(LocalPipelineTest, EndsAtMaxTokens) {
  auto pipeline = Make({});
  for (const int count : {1, 2, 40}) {
    const auto completion = One(*pipeline, Continue({10, 20, 30}, count));
    EXPECT_EQ(completion.tokens.size(), static_cast<size_t>(count));
    EXPECT_EQ(completion.finish, FinishReason::kLength);
  }
  EXPECT_EQ(pipeline->scheduler().num_free_blocks(), LocalPipelineOptions::kLeastBlocks);
}

TEST_F(LocalPipelineTest, FillsTheContextWhenMaxTokensIsZero) {
  auto pipeline = Make({.max_context = 32});
  EXPECT_EQ(One(*pipeline, Continue({10, 20, 30}, 0)).tokens.size(), 29u);
}

TEST_F(LocalPipelineTest, EndsWithAStopToken) {
  auto pipeline = Make({});
  NewSequence sequence = Continue({10, 20, 30}, 12);
  sequence.sampling.temperature = 1;
  const auto whole = One(*pipeline, sequence);
  size_t stop = 1;  // a token that does not come earlier
  while (std::count(whole.tokens.begin(), whole.tokens.begin() + static_cast<long>(stop),
                    whole.tokens[stop]) > 0) {
    ASSERT_LT(++stop, whole.tokens.size());
  }
  sequence.sampling.stop_tokens = {whole.tokens[stop]};
  const auto stopped = One(*pipeline, sequence);
  EXPECT_EQ(stopped.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens,
            std::vector<TokenId>(whole.tokens.begin(),
                                 whole.tokens.begin() + static_cast<long>(stop) + 1));
}

TEST_F(LocalPipelineTest, EndsAtEosUnlessToldNotTo) {
  auto pipeline = Make({});
  ASSERT_FALSE(TestModel().spec.eos_tokens.empty());
  const TokenId eos = TestModel().spec.eos_tokens[0];
  NewSequence sequence = Continue({10, 20, 30}, 5);
  sequence.sampling.logit_bias = {{.token = eos, .bias = 1000}};
  EXPECT_EQ(One(*pipeline, sequence).tokens.size(), 5u);
  sequence.sampling.ignore_eos = false;
  const auto ended = One(*pipeline, sequence);
  EXPECT_EQ(ended.tokens, std::vector<TokenId>{eos});
  EXPECT_EQ(ended.finish, FinishReason::kStop);
}

TEST_F(LocalPipelineTest, ComputesNothingWhenOneSequenceIsRefused) {
  auto pipeline = Make({});
  const auto refused = pipeline->Generate({Continue({1}, 4), Continue({}, 4)});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pipeline->num_steps(), 0u);
  EXPECT_EQ(One(*pipeline, Continue({1}, 4)).tokens.size(), 4u);
}

TEST_F(LocalPipelineTest, StaysBrokenAfterAStepFailed) {
  auto pipeline = Make({});
  EXPECT_EQ(pipeline->Generate({Continue({100000}, 4)}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(pipeline->Generate({Continue({1}, 4)}).ok());
}

TEST_F(LocalPipelineTest, RefusesMoreStagesThanLayers) {
  const auto pipeline = LocalPipeline::Create(TestModel().spec, *TestModel().checkpoint,
                                              ReferenceFactory(), {.num_stages = 3});
  EXPECT_EQ(pipeline.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LocalPipelineTest, ScoresAreTheLogprobsOfTheSampler) {
  auto pipeline = Make({.num_stages = 2, .max_step_tokens = 7, .max_sequences = 3});
  const std::vector<TokenId> prompt = {10, 20, 30};
  NewSequence sequence = Continue(prompt, 40);
  sequence.sampling.logprobs = 1;
  const auto completion = One(*pipeline, sequence);
  std::vector<TokenId> text = prompt;
  text.insert(text.end(), completion.tokens.begin(), completion.tokens.end());
  const auto scores = pipeline->Score(text);
  ASSERT_TRUE(scores.ok()) << scores.status();
  ASSERT_EQ(scores->size(), text.size() - 1);
  for (size_t i = 0; i < completion.tokens.size(); ++i) {
    EXPECT_NEAR((*scores)[prompt.size() - 1 + i], completion.logprobs[i].chosen.logprob, 1e-5);
  }
  EXPECT_TRUE(pipeline->Score({5})->empty());
  EXPECT_FALSE(pipeline->Score({}).ok());
}

TEST_F(LocalPipelineTest, ScoresTheSameBitsOverStagesAndChunks) {
  const std::vector<TokenId> text = RandomTokens(100, 256, 1);
  const auto truth = Make({})->Score(text);
  ASSERT_TRUE(truth.ok()) << truth.status();
  for (const int tokens : {1, 16, 33}) {
    auto pipeline =
        Make({.num_stages = 2, .max_step_tokens = tokens, .max_sequences = 1 + tokens / 4});
    EXPECT_EQ(*pipeline->Score(text), *truth) << tokens;
  }
}

TEST_F(LocalPipelineTest, PerplexityOfOneWindowIsTheMeanOfItsScores) {
  auto pipeline = Make({});
  const std::vector<TokenId> text = RandomTokens(100, 256, 2);
  const auto scores = pipeline->Score(text);
  ASSERT_TRUE(scores.ok()) << scores.status();
  double sum = 0;
  for (const float score : *scores) sum -= static_cast<double>(score);
  const auto measured = MeasurePerplexity(*pipeline, text, {.text_bytes = 200}, {});
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_NEAR(measured->perplexity, std::exp(sum / 99), 1e-9);
  EXPECT_NEAR(measured->bits_per_byte, sum / std::log(2.0) / 200, 1e-9);
  EXPECT_EQ(measured->num_tokens, 99);
  EXPECT_EQ(measured->num_computed, 100);
  EXPECT_GT(measured->tokens_per_second, 0);
}

TEST_F(LocalPipelineTest, PerplexityScoresEachTokenOnceInTheFirstWindowThatHoldsIt) {
  auto pipeline = Make({});
  const std::vector<TokenId> text = RandomTokens(50, 256, 3);
  double sum = 0;
  // Windows [0, 20), [8, 28), [16, 36), [24, 44), [32, 50).
  const int ends[] = {20, 28, 36, 44, 50};
  int scored = 1;
  for (int window = 0; window < 5; ++window) {
    const int first = window * 8;
    const auto scores = pipeline->Score({text.begin() + first, text.begin() + ends[window]});
    ASSERT_TRUE(scores.ok()) << scores.status();
    for (; scored < ends[window]; ++scored) {
      sum -= static_cast<double>((*scores)[static_cast<size_t>(scored - first - 1)]);
    }
  }
  int64_t last_progress = 0;
  const auto measured = MeasurePerplexity(*pipeline, text, {.context = 20, .stride = 8},
                                          [&](int64_t done, int64_t) { last_progress = done; });
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_NEAR(measured->perplexity, std::exp(sum / 49), 1e-9);
  EXPECT_EQ(measured->num_computed, 20 * 4 + 18);
  EXPECT_EQ(last_progress, 49);
}

TEST_F(LocalPipelineTest, PerplexityRefusesWindowsThatDoNotFit) {
  auto pipeline = Make({});
  const std::vector<TokenId> text = {1, 2, 3};
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto measure = [&](std::span<const TokenId> tokens, const PerplexityOptions& options) {
    return MeasurePerplexity(*pipeline, tokens, options, {}).status().code();
  };
  EXPECT_EQ(measure({}, {}), invalid);
  EXPECT_EQ(measure(std::span(text).first(1), {}), invalid);
  EXPECT_EQ(measure(text, {.context = 129}), invalid);
  EXPECT_EQ(measure(text, {.context = 1}), invalid);
  EXPECT_EQ(measure(text, {.context = 8, .stride = 8}), invalid);
  EXPECT_EQ(measure(text, {.context = 2}), absl::StatusCode::kOk);
}

TEST(NumericsIdTest, ChangesWithEveryFactAndWithNothingElse) {
  const NumericsFacts facts = {.model_digest = "ab",
                               .weight_format = "native",
                               .activation_quantization = "none",
                               .kv_type = "f32",
                               .backend_class = "cpu"};
  const std::string id = NumericsId(facts);
  EXPECT_EQ(id.size(), 16u);
  EXPECT_EQ(id, NumericsId(facts));
  std::vector<NumericsFacts> others(7, facts);
  others[0].model_digest = "abc";
  others[1].weight_format = "int8";
  others[2].activation_quantization = "int8-groups";
  others[3].kv_type = "f16";
  others[4].backend_class = "reference";
  others[5].version += 1;
  others[6].model_digest = "abn";  // letters that move from one fact to the next
  others[6].weight_format = "ative";
  for (const NumericsFacts& other : others) EXPECT_NE(NumericsId(other), id);
}

TEST(FormatsTest, NamesAreReadBackAndUnknownOnesRefused) {
  for (const LoadFormat format : {LoadFormat::kStored, LoadFormat::kF32, LoadFormat::kInt8,
                                  LoadFormat::kInt4, LoadFormat::kInt3, LoadFormat::kNf4}) {
    EXPECT_EQ(*ParseLoadFormat(Name(format)), format);
  }
  EXPECT_EQ(*ParseKvType("f16"), DType::kF16);
  EXPECT_EQ(*ParseKvType("int8"), DType::kI8);
  EXPECT_THAT(std::string(ParseLoadFormat("q4").status().message()), HasSubstr("'q4'"));
  EXPECT_EQ(ParseKvType("bf16").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sauva
