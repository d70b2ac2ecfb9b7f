// Every backend's Sample equals the host's sampler bit for bit: tokens, log-probabilities and
// alternatives, for every control alone and together, on logits that are awkward.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "kernels/sampling.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

enum class Logits { kNormal, kTied, kFlat, kNotFinite, kNoneFinite, kZeros, kHuge };
constexpr Logits kAllLogits[] = {Logits::kNormal,    Logits::kTied,       Logits::kFlat,
                                 Logits::kNotFinite, Logits::kNoneFinite, Logits::kZeros,
                                 Logits::kHuge};

float LogitOf(Logits kind, testing::Random& random) {
  switch (kind) {
    case Logits::kNormal:
      return 3 * random.Normal();
    case Logits::kTied:
      return static_cast<float>(random.Below(4));
    case Logits::kFlat:
      return 1.5f;
    case Logits::kNotFinite: {
      constexpr float kOdd[] = {kNan, -kNan, kInfinity, -kInfinity};
      return random.Below(2) == 0 ? kOdd[random.Below(4)] : random.Normal();
    }
    case Logits::kNoneFinite:
      return random.Below(2) == 0 ? kNan : kInfinity;
    case Logits::kZeros:
      return random.Below(2) == 0 ? 0.0f : -0.0f;
    case Logits::kHuge:
      return 3e38f * random.Normal();  // infinite, some of them
  }
  return 0;
}

template <class T, size_t kCount>
T OneOf(const T (&choices)[kCount], testing::Random& random) {
  return choices[random.Below(static_cast<int>(kCount))];
}

// What a row asks for, with the lists it refers to.
struct Request {
  SampleRow row;
  std::vector<TokenBias> biases;
  std::vector<int32_t> tokens;

  Request(int vocabulary, testing::Random& random) {
    const auto chance = [&](int of) { return random.Below(of) == 0; };
    row.temperature = OneOf({0.0f, 0.3f, 1.0f, 1.0f, 2.5f, 1e-30f, 1e30f}, random);
    row.top_k = OneOf({0, 0, 1, 5, 40, vocabulary - 1, vocabulary, vocabulary + 7}, random);
    row.top_p = OneOf({1.0f, 1.0f, 0.95f, 0.5f, 0.01f, 0.0f}, random);
    row.min_p = OneOf({0.0f, 0.0f, 0.001f, 0.3f, 1.0f}, random);
    row.seed = static_cast<uint64_t>(random.Below(1 << 30)) << 17;
    row.sample_index = static_cast<uint32_t>(random.Below(3));
    row.position = static_cast<uint64_t>(random.Below(1000));
    row.num_logprobs = OneOf({0, 1, 5, kMaxLogprobs}, random);
    if (chance(2)) row.repetition_penalty = OneOf({1.0f, 1.3f, 0.7f}, random);
    if (chance(2)) row.presence_penalty = OneOf({0.0f, 0.6f, -0.6f}, random);
    if (chance(2)) row.frequency_penalty = OneOf({0.0f, 0.37f, -0.1f}, random);
    const int num_tokens = random.Below(200);
    for (int i = 0; i < num_tokens; ++i) {
      tokens.push_back(random.Below(chance(3) ? vocabulary : std::min(vocabulary, 9)));
    }
    row.num_prompt_tokens = random.Below(num_tokens + 1);
    if (chance(2)) {
      for (int i = random.Below(40); i > 0; --i) {  // of some tokens several
        biases.push_back({random.Below(std::min(vocabulary, 30)), random.Normal() * 4});
      }
      if (chance(4)) biases.push_back({random.Below(vocabulary), -kInfinity});
    }
  }
  SampleRow View() const {
    SampleRow view = row;
    view.tokens = tokens;
    view.logit_bias = biases;
    return view;
  }
};

bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

void ExpectSame(const SampleResult& expected, const SampleResult& actual) {
  EXPECT_EQ(expected.token, actual.token);
  EXPECT_TRUE(SameBits(expected.logprob, actual.logprob))
      << expected.logprob << " and " << actual.logprob;
  ASSERT_EQ(expected.top.size(), actual.top.size());
  for (size_t i = 0; i < expected.top.size(); ++i) {
    EXPECT_EQ(expected.top[i].token, actual.top[i].token) << "alternative " << i;
    EXPECT_TRUE(SameBits(expected.top[i].logprob, actual.top[i].logprob)) << "alternative " << i;
  }
}

std::vector<SampleResult> OnTheHost(testing::Matrix logits, const std::vector<SampleRow>& rows) {
  SampleScratch scratch(logits.num_columns());
  std::vector<SampleResult> results(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    SampleOne({logits.rows().row(static_cast<int>(i)), static_cast<size_t>(logits.num_columns())},
              rows[i], scratch, results[i]);
  }
  return results;
}

// Draws `num_rows` rows of logits of each kind; returns how many different tokens came out.
size_t CompareVocabulary(Backend& backend, int vocabulary, int num_rows) {
  EXPECT_TRUE(backend.Reserve(testing::TestLimits(), 64, vocabulary).ok());
  std::set<int32_t> drawn;
  for (const Logits kind : kAllLogits) {
    testing::Random random(static_cast<uint32_t>(vocabulary * 10 + static_cast<int>(kind)));
    testing::Matrix logits(num_rows, vocabulary);
    std::vector<Request> requests;
    std::vector<SampleRow> rows;
    for (int i = 0; i < num_rows; ++i) {
      for (int t = 0; t < vocabulary; ++t) logits.at(i, t) = LogitOf(kind, random);
      requests.emplace_back(vocabulary, random);
    }
    for (const Request& request : requests) rows.push_back(request.View());
    const std::vector<SampleResult> expected = OnTheHost(logits, rows);
    std::vector<SampleResult> actual(rows.size());
    backend.Sample(logits.rows(), rows, actual);
    for (size_t i = 0; i < rows.size(); ++i) {
      ExpectSame(expected[i], actual[i]);
      drawn.insert(actual[i].token);
      if (::testing::Test::HasFailure()) {
        ADD_FAILURE() << "row " << i << " of logits of kind " << static_cast<int>(kind);
        return drawn.size();
      }
    }
  }
  return drawn.size();
}

TEST(SamplerEqualityTest, EveryBackendEqualsTheHostsSampler) {
  for (const testing::Candidate& candidate : testing::Candidates()) {
    for (const int vocabulary : {1, 2, 31, 32, 33, 1000, 1023, 1024, 1025}) {
      const size_t drawn = CompareVocabulary(*candidate.make(), vocabulary, 9);
      EXPECT_GE(drawn, static_cast<size_t>(std::min(vocabulary, 6)));
      if (HasFailure()) FAIL() << candidate.name << ", a vocabulary of " << vocabulary;
    }
    EXPECT_GE(CompareVocabulary(*candidate.make(), 32000, 5), 6u);
    if (HasFailure()) FAIL() << candidate.name << ", a vocabulary of 32000";
  }
}

// The rows' histories together are longer than a device's buffer for them.
TEST(SamplerEqualityTest, LongHistoriesOfManyRowsAreAllCounted) {
  constexpr int kRows = 16, kVocabulary = 9000;
  testing::Random random(3);
  const testing::Matrix logits = random.Rows(kRows, kVocabulary);
  std::vector<std::vector<int32_t>> histories(kRows);
  std::vector<SampleRow> rows(kRows);
  for (size_t i = 0; i < kRows; ++i) {
    for (int t = 0; t < kVocabulary; ++t) histories[i].push_back(t);
    for (int t = 0; t < 100; ++t) histories[i].push_back(random.Below(kVocabulary));
    rows[i] = {.temperature = i % 2 == 0 ? 0.0f : 1.0f,
               .repetition_penalty = 1.5f,
               .frequency_penalty = 2,
               .tokens = histories[i],
               .num_prompt_tokens = kVocabulary,
               .position = i,
               .num_logprobs = 2};
  }
  const std::vector<SampleResult> expected = OnTheHost(logits, rows);
  for (const testing::Candidate& candidate : testing::Candidates()) {
    const auto backend = candidate.make();
    ASSERT_TRUE(backend->Reserve(testing::TestLimits(), 64, kVocabulary).ok());
    testing::Matrix copy = logits;
    std::vector<SampleResult> actual(kRows);
    backend->Sample(copy.rows(), rows, actual);
    for (size_t i = 0; i < kRows; ++i) ExpectSame(expected[i], actual[i]);
    if (HasFailure()) FAIL() << candidate.name;
  }
}

}  // namespace
}  // namespace sauva
