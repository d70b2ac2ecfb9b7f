// One token from one row of logits, against small cases worked out by hand and against an
// independent implementation in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/factory.h"
#include "kernels/philox.h"
#include "kernels/sampling.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SampleResult Sample(std::vector<float> logits, const SampleRow& row) {
  SampleScratch scratch(static_cast<int>(logits.size()));
  SampleResult result;
  SampleOne(logits, row, scratch, result);
  for (const int32_t count : scratch.counts) EXPECT_EQ(count, 0);
  return result;
}

int32_t Greedy(std::vector<float> logits, SampleRow row = {}) {
  row.temperature = 0;
  return Sample(std::move(logits), row).token;
}

std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// How often each token is drawn at positions 0, 1, ….
std::vector<int> Frequencies(const std::vector<float>& logits, SampleRow row, int draws) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    row.position = static_cast<uint64_t>(i);
    ++counts[static_cast<size_t>(Sample(logits, row).token)];
  }
  return counts;
}

std::vector<int32_t> TokensDrawn(const std::vector<double>& probabilities, const SampleRow& row) {
  const std::vector<int> counts = Frequencies(LogitsOf(probabilities), row, 500);
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) tokens.push_back(static_cast<int32_t>(i));
  }
  return tokens;
}

double ChiSquare(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  const double draws = std::accumulate(counts.begin(), counts.end(), 0);
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = draws * probabilities[i];
    sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}

// Source: the known-answer tests published with Random123.
TEST(PhiloxTest, GivesThePublishedAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, UniformNumbersAreTheFirst24BitsOfTheFirstWord) {
  EXPECT_EQ(PhiloxUniform(0, 0, 0), static_cast<float>(0x6627e8) / 16777216.0f);
}

TEST(PhiloxTest, EveryPartOfTheKeyMatters) {
  const float first = PhiloxUniform(7, 1, 100);
  EXPECT_NE(first, PhiloxUniform(8, 1, 100));
  EXPECT_NE(first, PhiloxUniform(7 + (uint64_t{1} << 32), 1, 100));
  EXPECT_NE(first, PhiloxUniform(7, 2, 100));
  EXPECT_NE(first, PhiloxUniform(7, 1, 101));
  EXPECT_NE(first, PhiloxUniform(7, 1, 100 + (uint64_t{1} << 32)));
}

TEST(PhiloxTest, UniformNumbersFillTheirRangeEvenly) {
  std::vector<int> counts(16);
  for (uint64_t i = 0; i < 16000; ++i) {
    const float u = PhiloxUniform(3, 0, i);
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    ++counts[static_cast<size_t>(u * 16)];
  }
  EXPECT_LT(ChiSquare(counts, std::vector<double>(16, 1 / 16.0)), 37.7);  // 15 degrees, 0.1 %
}

TEST(SamplerTest, GreedyTakesTheLikeliestAndOfEqualsTheFirst) {
  EXPECT_EQ(Greedy({1, 5, 3}), 1);
  EXPECT_EQ(Greedy({1, 5, 3, 5}), 1);
  EXPECT_EQ(Greedy({-0.0f, 0.0f}), 0);
  EXPECT_EQ(Greedy({-3, -2, -9}), 1);
}

TEST(SamplerTest, NumbersThatAreNotFiniteAreNeverTaken) {
  EXPECT_EQ(Greedy({kNan, -5, kInfinity, -4, -kInfinity}), 3);
  EXPECT_EQ(Greedy({kNan, kNan}), 0);
  EXPECT_EQ(Sample({kNan, kInfinity, -kInfinity}, {}).token, 0);
  EXPECT_EQ(TokensDrawn({0.5, 0.5}, {}), (std::vector<int32_t>{0, 1}));
  for (uint64_t position = 0; position < 50; ++position) {
    const SampleRow row{.top_k = 3, .top_p = 0.9f, .position = position, .num_logprobs = 2};
    EXPECT_EQ(Sample({kNan, 1.5f, kInfinity}, row).token, 1);
  }
}

TEST(SamplerTest, BiasComesBeforeThePenalties) {
  const TokenBias bias[] = {{.token = 2, .bias = 6}, {.token = 0, .bias = -100}};
  EXPECT_EQ(Greedy({5, 3, 1}, {.logit_bias = bias}), 2);  // 7
  const int32_t tokens[] = {2};
  // (1 + 6) / 2 = 3.5, and not 1 / 2 + 6.
  const TokenBias only[] = {{.token = 2, .bias = 6}};
  EXPECT_EQ(Greedy({5, 3, 1}, {.repetition_penalty = 2, .logit_bias = only, .tokens = tokens}), 0);
}

TEST(SamplerTest, RepetitionDividesPositiveAndMultipliesNegativeLogitsOnce) {
  const int32_t tokens[] = {0, 0, 0, 1};
  SampleRow row{.temperature = 0, .repetition_penalty = 2, .tokens = tokens, .num_logprobs = 3};
  const SampleResult result = Sample({3, -1, 0}, row);  // 1.5, -2, 0
  ASSERT_EQ(result.top.size(), 3u);
  EXPECT_EQ(result.top[0].token, 0);
  EXPECT_EQ(result.top[1].token, 2);
  EXPECT_NEAR(result.top[0].logprob - result.top[1].logprob, 1.5, 1e-6);
  EXPECT_NEAR(result.top[0].logprob - result.top[2].logprob, 3.5, 1e-6);
}

TEST(SamplerTest, PresenceAndFrequencyCountTheCompletionOnly) {
  const int32_t tokens[] = {0, 0, 1, 1, 1, 2};  // a prompt of two
  SampleRow row{.temperature = 0,
                .presence_penalty = 0.5f,
                .frequency_penalty = 0.25f,
                .tokens = tokens,
                .num_prompt_tokens = 2,
                .num_logprobs = 4};
  const SampleResult result = Sample({0, 0, 0, 0}, row);  // 0, -1.25, -0.75, 0
  ASSERT_EQ(result.top.size(), 4u);
  EXPECT_EQ(result.top[0].token, 0);
  EXPECT_EQ(result.top[1].token, 3);
  EXPECT_EQ(result.top[2].token, 2);
  EXPECT_EQ(result.top[3].token, 1);
  EXPECT_NEAR(result.top[0].logprob - result.top[2].logprob, 0.75, 1e-6);
  EXPECT_NEAR(result.top[0].logprob - result.top[3].logprob, 1.25, 1e-6);
}

TEST(SamplerTest, LogprobsAreOfTheDistributionBeforeTemperature) {
  const std::vector<float> logits = LogitsOf({0.1, 0.2, 0.4, 0.3});
  for (const float temperature : {0.0f, 0.1f, 3.0f}) {
    const SampleResult result =
        Sample(logits, {.temperature = temperature, .top_k = 1, .num_logprobs = 2});
    EXPECT_EQ(result.token, 2);
    EXPECT_NEAR(result.logprob, std::log(0.4), 1e-6);
    ASSERT_EQ(result.top.size(), 2u);
    EXPECT_EQ(result.top[0].token, 2);
    EXPECT_EQ(result.top[1].token, 3);
    EXPECT_NEAR(result.top[1].logprob, std::log(0.3), 1e-6);
  }
}

TEST(SamplerTest, NoMoreThanTheMostLogprobsAreReported) {
  EXPECT_EQ(Sample(std::vector<float>(100, 1.0f), {.num_logprobs = 50}).top.size(),
            static_cast<size_t>(kMaxLogprobs));
  EXPECT_EQ(Sample({1, 2}, {.num_logprobs = 5}).top.size(), 2u);
}

TEST(SamplerTest, TopKKeepsTheLikeliestAndOfEqualsTheFirst) {
  EXPECT_EQ(TokensDrawn({0.2, 0.3, 0.1, 0.4}, {.top_k = 2}), (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(TokensDrawn({0.2, 0.2, 0.2, 0.4}, {.top_k = 3}), (std::vector<int32_t>{0, 1, 3}));
  EXPECT_EQ(TokensDrawn({0.25, 0.35, 0.4}, {.top_k = 100}), (std::vector<int32_t>{0, 1, 2}));
}

TEST(SamplerTest, TopPKeepsTheShortestPrefixThatReachesIt) {
  const std::vector<double> p = {0.05, 0.3, 0.5, 0.15};
  EXPECT_EQ(TokensDrawn(p, {.top_p = 0.79f}), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(TokensDrawn(p, {.top_p = 0.81f}), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(TokensDrawn(p, {.top_p = 0.49f}), (std::vector<int32_t>{2}));
  EXPECT_EQ(TokensDrawn(p, {.top_p = 0.0f}), (std::vector<int32_t>{2}));
}

TEST(SamplerTest, TopPCountsShareOfWhatTopKLeft) {
  const std::vector<double> p = {0.05, 0.3, 0.5, 0.15};  // of two: 0.625 and 0.375
  EXPECT_EQ(TokensDrawn(p, {.top_k = 2, .top_p = 0.6f}), (std::vector<int32_t>{2}));
  EXPECT_EQ(TokensDrawn(p, {.top_k = 2, .top_p = 0.65f}), (std::vector<int32_t>{1, 2}));
}

TEST(SamplerTest, MinPIsRelativeToTheLikeliest) {
  const std::vector<double> p = {0.05, 0.3, 0.5, 0.15};
  EXPECT_EQ(TokensDrawn(p, {.min_p = 0.2f}), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(TokensDrawn(p, {.min_p = 0.4f}), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(TokensDrawn(p, {.min_p = 1.0f}), (std::vector<int32_t>{2}));
}

TEST(SamplerTest, DrawsAsOftenAsTheProbabilitiesSay) {
  const std::vector<double> p = {0.02, 0.08, 0.3, 0.05, 0.15, 0.25, 0.1, 0.05};
  EXPECT_LT(ChiSquare(Frequencies(LogitsOf(p), {.seed = 42}, 20000), p), 24.3);  // 0.1 %
}

TEST(SamplerTest, TemperatureRaisesProbabilitiesToItsInverse) {
  const std::vector<double> p = {0.1, 0.2, 0.3, 0.4};
  std::vector<double> squared;
  for (const double x : p) squared.push_back(x * x / 0.3);
  const SampleRow row{.temperature = 0.5f, .seed = 1};
  EXPECT_LT(ChiSquare(Frequencies(LogitsOf(p), row, 20000), squared), 16.3);
}

TEST(SamplerTest, TinyAndHugeTemperaturesAreTheirLimits) {
  EXPECT_EQ(Frequencies({1.0f, 1.1f, 1.05f}, {.temperature = 1e-30f}, 100)[1], 100);
  const std::vector<int> counts = Frequencies({-50, 0, 50}, {.temperature = 1e30f}, 9000);
  EXPECT_LT(ChiSquare(counts, std::vector<double>(3, 1 / 3.0)), 13.8);
}

// The whole procedure again in double: full sort, exact walk. Draws within rounding of a
// boundary may differ and are not compared.
struct Independent {
  int32_t token = -1;
  bool near_boundary = false;
};

Independent DrawIndependently(const std::vector<float>& logits, const SampleRow& row) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  std::vector<int32_t> ranked(logits.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp((logits[i] - highest) / row.temperature);
  if (row.top_k > 0) ranked.resize(std::min(ranked.size(), static_cast<size_t>(row.top_k)));
  double total = 0;
  for (const int32_t t : ranked) total += p[static_cast<size_t>(t)];
  Independent result;
  double mass = 0;
  size_t kept = 0;
  while (kept < ranked.size() && (kept == 0 || mass < row.top_p * total)) {
    mass += p[static_cast<size_t>(ranked[kept++])];
    result.near_boundary |= row.top_p < 1 && std::fabs(mass - row.top_p * total) < 1e-6 * total;
  }
  ranked.resize(kept);
  std::erase_if(ranked, [&](int32_t t) { return p[static_cast<size_t>(t)] < row.min_p; });
  std::sort(ranked.begin(), ranked.end());
  total = 0;
  for (const int32_t t : ranked) total += p[static_cast<size_t>(t)];
  const double target = total * PhiloxUniform(row.seed, row.sample_index, row.position);
  mass = 0;
  for (const int32_t t : ranked) {
    mass += p[static_cast<size_t>(t)];
    result.near_boundary |= std::fabs(mass - target) < 1e-6 * total;
    if (mass > target && result.token < 0) result.token = t;
  }
  return result;
}

TEST(SamplerTest, AgreesWithAnIndependentImplementationOnLargeVocabularies) {
  int compared = 0;
  int distinct_kinds = 0;
  for (const SampleRow& kind :
       {SampleRow{}, SampleRow{.top_k = 40}, SampleRow{.top_p = 0.9f}, SampleRow{.min_p = 0.05f},
        SampleRow{.temperature = 0.7f, .top_k = 1000, .top_p = 0.95f, .min_p = 0.001f}}) {
    ++distinct_kinds;
    for (uint64_t i = 0; i < 60; ++i) {
      testing::Random random(static_cast<uint32_t>(i));
      std::vector<float> logits = random.Vector(5000);
      for (float& logit : logits) logit *= 3;
      SampleRow row = kind;
      row.seed = i * 77;
      row.sample_index = static_cast<uint32_t>(i % 3);
      row.position = 1000 + i;
      const Independent expected = DrawIndependently(logits, row);
      if (expected.near_boundary) continue;
      ++compared;
      ASSERT_EQ(Sample(logits, row).token, expected.token) << "draw " << i;
    }
  }
  EXPECT_GT(compared, distinct_kinds * 50);
}

TEST(SamplerTest, EveryBackendDrawsTheSameTokens) {
  const int rows = 12, vocabulary = 3000;
  testing::Random random(5);
  const testing::Matrix logits = random.Rows(rows, vocabulary);
  std::vector<SampleRow> controls(rows);
  for (int i = 0; i < rows; ++i) {
    controls[static_cast<size_t>(i)] = {.temperature = static_cast<float>(i % 4),
                                        .top_k = i % 3 * 20,
                                        .top_p = i % 2 ? 0.8f : 1.0f,
                                        .seed = 9,
                                        .position = static_cast<uint64_t>(i)};
  }
  const auto draw = [&](Backend& backend) {
    testing::Matrix copy = logits;
    EXPECT_TRUE(backend.Reserve(testing::TestLimits(), 64, vocabulary).ok());
    std::vector<SampleResult> results(rows);
    backend.Sample(copy.rows(), controls, results);
    std::vector<int32_t> tokens;
    for (const SampleResult& result : results) tokens.push_back(result.token);
    return tokens;
  };
  const std::vector<int32_t> expected = draw(*MakeReferenceBackend());
  for (const testing::Candidate& candidate : testing::Candidates()) {
    EXPECT_EQ(draw(*candidate.make()), expected) << candidate.name;
  }
}

}  // namespace
}  // namespace sauva
