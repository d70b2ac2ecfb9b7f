#include "quantize/gptq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "quantize/group_rounding.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kColumns = 192;
constexpr int64_t kRows = 40;
constexpr int64_t kTokens = 600;

std::vector<float> Normal(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// Inputs whose columns move together and are of unlike sizes, as hidden states are.
std::vector<float> Inputs() {
  std::vector<float> x = Normal(kTokens * kColumns, 1);
  for (int64_t t = 0; t < kTokens; ++t) {
    float* row = x.data() + t * kColumns;
    for (int64_t i = 1; i < kColumns; ++i) row[i] = 0.8f * row[i - 1] + 0.6f * row[i];
    for (int64_t i = 0; i < kColumns; ++i) row[i] *= i % 17 == 0 ? 6.0f : 1.0f;
  }
  return x;
}

Hessian HessianOf(const std::vector<float>& x, int64_t at_once) {
  Hessian hessian(kColumns);
  for (int64_t t = 0; t < kTokens; t += at_once) {
    hessian.Add({x.data() + t * kColumns, std::min(at_once, kTokens - t), kColumns}, 2);
  }
  return hessian;
}

float Weight(const QuantizedMatrix& m, int64_t row, int64_t column) {
  for (int64_t i = 0; i < m.columns; ++i) {
    const int64_t input = m.column_order.empty() ? i : m.column_order[static_cast<size_t>(i)];
    if (input == column) return Dequantize(m, row, i);
  }
  return 0;
}

// Mean square error of the outputs over the inputs.
double OutputError(const QuantizedMatrix& m, const std::vector<float>& weights,
                   const std::vector<float>& x) {
  double sum = 0;
  for (int64_t row = 0; row < m.rows; ++row) {
    std::vector<float> error(static_cast<size_t>(m.columns));
    for (int64_t i = 0; i < m.columns; ++i) {
      error[static_cast<size_t>(i)] =
          Weight(m, row, i) - weights[static_cast<size_t>(row * m.columns + i)];
    }
    for (int64_t t = 0; t < kTokens; ++t) {
      double y = 0;
      for (int64_t i = 0; i < m.columns; ++i) {
        y += static_cast<double>(error[static_cast<size_t>(i)]) *
             static_cast<double>(x[static_cast<size_t>(t * m.columns + i)]);
      }
      sum += y * y;
    }
  }
  return sum / static_cast<double>(m.rows * kTokens);
}

QuantizedMatrix Rounded(const std::vector<float>& weights, const GptqOptions& options) {
  // Without a Hessian's correlations the method is plain rounding on the same grids.
  Hessian identity(kColumns);
  for (int64_t i = 0; i < kColumns; ++i) {
    std::vector<float> unit(static_cast<size_t>(kColumns));
    unit[static_cast<size_t>(i)] = 1;
    identity.Add({unit.data(), 1, kColumns}, 1);
  }
  std::string note;
  const auto factor = GptqFactor::Create(std::move(identity), options, note);
  return *QuantizeGptq(weights, kRows, *factor, options);
}

TEST(GptqTest, OutputsAreNearerThanByRounding) {
  const std::vector<float> x = Inputs();
  const std::vector<float> weights = Normal(kRows * kColumns, 2);
  for (const int bits : {3, 4}) {
    for (const bool act_order : {false, true}) {
      for (const bool symmetric : {false, true}) {
        const GptqOptions options = {
            .bits = bits, .group_size = 64, .act_order = act_order, .symmetric = symmetric};
        std::string note;
        const auto factor = GptqFactor::Create(HessianOf(x, 100), options, note);
        ASSERT_TRUE(factor.ok()) << factor.status();
        EXPECT_EQ(note, "");
        const auto matrix = QuantizeGptq(weights, kRows, *factor, options);
        ASSERT_TRUE(matrix.ok()) << matrix.status();
        EXPECT_TRUE(ValidateQuantizedMatrix("w", *matrix).ok());
        EXPECT_EQ(matrix->column_order.empty(), !act_order);
        EXPECT_LT(OutputError(*matrix, weights, x),
                  0.6 * OutputError(Rounded(weights, options), weights, x))
            << bits << " bits, act-order " << act_order << ", symmetric " << symmetric;
      }
    }
  }
}

TEST(GptqTest, ThreadsChangeNothing) {
  const std::vector<float> x = Inputs();
  const std::vector<float> weights = Normal(kRows * kColumns, 3);
  std::vector<QuantizedMatrix> results;
  for (const int threads : {1, 3}) {
    const GptqOptions options = {.bits = 4, .group_size = 32, .threads = threads};
    std::string note;
    const auto factor = GptqFactor::Create(HessianOf(x, 600), options, note);
    results.push_back(*QuantizeGptq(weights, kRows, *factor, options));
  }
  EXPECT_EQ(results[0].codes, results[1].codes);
  EXPECT_EQ(results[0].scales, results[1].scales);
}

TEST(GptqTest, ColumnsThatWereNeverUsedBecomeZero) {
  std::vector<float> x = Inputs();
  for (int64_t t = 0; t < kTokens; ++t) x[static_cast<size_t>(t * kColumns + 5)] = 0;
  const std::vector<float> weights = Normal(kRows * kColumns, 4);
  const GptqOptions options = {.bits = 4, .group_size = 32, .symmetric = true};
  std::string note;
  const auto factor = GptqFactor::Create(HessianOf(x, 600), options, note);
  ASSERT_TRUE(factor.ok()) << factor.status();
  const QuantizedMatrix matrix = *QuantizeGptq(weights, kRows, *factor, options);
  for (int64_t row = 0; row < kRows; ++row) EXPECT_EQ(Weight(matrix, row, 5), 0.0f);
}

TEST(GptqTest, DampingIsRaisedAndSaidOrTheHessianRefused) {
  // All inputs are one: beside the first, every pivot is what damping adds, which f32 does
  // not see below 1e-7 of it.
  GptqOptions options = {.bits = 4, .group_size = 32, .damping = 1e-9f};
  const std::vector<float> same(static_cast<size_t>(kColumns), 1.0f);
  Hessian singular(kColumns);
  for (int i = 0; i < 4; ++i) singular.Add({same.data(), 1, kColumns}, 1);
  std::string note;
  EXPECT_TRUE(GptqFactor::Create(std::move(singular), options, note).ok());
  EXPECT_THAT(note, HasSubstr("damping raised to 1e-0"));
  options.damping = 0.01f;
  std::vector<float> ones = same;
  Hessian broken(kColumns);
  ones[7] = std::nanf("");
  broken.Add({ones.data(), 1, kColumns}, 1);
  const auto refused = GptqFactor::Create(std::move(broken), options, note);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("not positive definite"));
}

TEST(GptqTest, ANumberThatIsNotFiniteIsNamed) {
  std::vector<float> weights = Normal(kRows * kColumns, 5);
  weights[2 * kColumns + 9] = HUGE_VALF;
  const GptqOptions options = {.bits = 4, .group_size = 32};
  std::string note;
  const auto factor = GptqFactor::Create(HessianOf(Inputs(), 600), options, note);
  const auto matrix = QuantizeGptq(weights, kRows, *factor, options);
  EXPECT_THAT(std::string(matrix.status().message()), HasSubstr("row 2, column 9"));
}

}  // namespace
}  // namespace sauva
