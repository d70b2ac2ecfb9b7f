// The reference backend and the elementary functions against the same mathematics in
// double precision, so that what all other tests compare with is right itself.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/factory.h"
#include "kernels/half.h"
#include "kernels/math.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

using testing::Matrix;
using testing::Random;
using testing::Step;
using testing::StoredMatrix;
using testing::TestLimits;

constexpr double kEpsilon = 0x1p-23;

TEST(MathTest, ExpIsWithinOneUnitInTheLastPlace) {
  for (double x = -87; x < 88.7; x += 0.00973) {
    const auto rounded = static_cast<float>(x);
    const double expected = std::exp(static_cast<double>(rounded));
    ASSERT_NEAR(Exp(rounded) / expected, 1.0, kEpsilon) << rounded;
  }
}

TEST(MathTest, ExpOfExtremes) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(Exp(-1e30f), 0.0f);
  EXPECT_EQ(Exp(89.0f), std::numeric_limits<float>::infinity());
  EXPECT_EQ(Exp(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(Exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_NEAR(Exp(-100.0f), std::exp(-100.0), 1.5e-45);  // subnormal
}

TEST(MathTest, LogIsDoublePrecise) {
  for (double x = 1e-300; x < 1e300; x *= 1.37) ASSERT_NEAR(Log(x), std::log(x), 2e-13) << x;
  EXPECT_EQ(Log(1.0), 0.0);
}

TEST(MathTest, SineAndCosineOfLargeAngles) {
  for (double x = -200000; x < 200000; x += 3.0517) {
    ASSERT_NEAR(SinCosOf(x).sin, std::sin(x), 1e-14) << x;
    ASSERT_NEAR(SinCosOf(x).cos, std::cos(x), 1e-14) << x;
  }
}

TEST(MathTest, GatesAreCloseToTheirDefinitions) {
  for (double x = -12; x < 12; x += 0.00137) {
    const auto f = static_cast<float>(x);
    const double v = f;
    ASSERT_NEAR(Silu(f), v / (1 + std::exp(-v)), 3e-7 * (1 + std::fabs(v))) << v;
    const double gelu = v * 0.5 * std::erfc(-v / std::sqrt(2.0));
    ASSERT_NEAR(Gelu(f), gelu, 4e-7 * std::fabs(v)) << v;
    if (v < -1) {
      ASSERT_NEAR(Gelu(f) / gelu, 1, 1e-5) << v;
    }
    const double inner = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
    ASSERT_NEAR(GeluTanh(f), 0.5 * v * (1 + std::tanh(inner)), 4e-7 * (1 + std::fabs(v))) << v;
    ASSERT_EQ(Apply(GateKind::kRelu, f), v > 0 ? f : 0.0f);
  }
}

TEST(MathTest, HalvesConvertBothWaysForEveryBitPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) continue;
    ASSERT_EQ(FloatToHalf(value), half);
    const int exponent = bits >> 10 & 31;
    const double fraction = (bits & 1023) / 1024.0;
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -14)
                             : exponent == 31 ? INFINITY
                                              : std::ldexp(1 + fraction, exponent - 15);
    ASSERT_EQ(value, bits & 0x8000 ? -magnitude : magnitude);
  }
}

TEST(MathTest, HalvesRoundToNearestEven) {
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 0x1p-11f)), 1.0f);                // tie, even below
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 3 * 0x1p-11f)), 1.0f + 0x1p-9f);  // tie, even above
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 0x1.01p-11f)), 1.0f + 0x1p-10f);
  EXPECT_EQ(HalfToFloat(FloatToHalf(0x1p-25f)), 0.0f);  // tie, to zero
  EXPECT_EQ(HalfToFloat(FloatToHalf(0x1.01p-25f)), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(FloatToHalf(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(HalfToFloat(FloatToHalf(65520.0f))));
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(NAN))));
}

TEST(MathTest, ManyHalvesAreRoundedAsOneIs) {
  std::vector<float> floats;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // every exponent and sign, each with some tails
    for (const uint32_t tail : {0u, 0x0fffu, 0x1000u, 0x1001u, 0x3000u}) {
      floats.push_back(std::bit_cast<float>(bits << 16 | tail));
    }
  }
  std::vector<uint16_t> halves(floats.size());
  EXPECT_FALSE(FloatsToHalves(floats, halves.data()));
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(halves[i], FloatToHalf(floats[i])) << i;

  floats.assign(37, 0.75f);
  EXPECT_TRUE(FloatsToHalves(floats, halves.data()));
  floats[36] = 0x1.001p-3f;
  EXPECT_FALSE(FloatsToHalves(floats, halves.data()));
}

class ReferenceTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(backend_->Reserve(TestLimits(), 512, 64).ok()); }
  std::unique_ptr<Backend> backend_ = MakeReferenceBackend();
};

TEST_F(ReferenceTest, MatMulIsTheSumOfProductsPlusBias) {
  Random random(1);
  const int rows = 9, columns = 333, tokens = 4;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const StoredMatrix stored(random.Vector(rows * columns), rows, columns, dtype);
    const std::vector<float> bias = random.Vector(rows);
    Matrix x = random.Rows(tokens, columns);
    Matrix out(tokens, rows);
    const auto weight = backend_->PrepareWeight(stored.source(), WeightFormat::kNative);
    ASSERT_TRUE(weight.ok());
    backend_->MatMul({.weight = weight->get(), .x = x.rows(), .bias = bias, .out = out.rows()});
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < rows; ++r) {
        double sum = bias[static_cast<size_t>(r)];
        for (int c = 0; c < columns; ++c) sum += double{x.at(t, c)} * double{stored.at(r, c)};
        ASSERT_NEAR(out.at(t, r), sum, 2e-5);
      }
    }
  }
}

// Int8 is exact but for the rounding of codes: half a step of weight and of activation.
TEST_F(ReferenceTest, Int8MatMulErrsByNoMoreThanItsRounding) {
  Random random(2);
  const int rows = 5, columns = 100;
  const StoredMatrix stored(random.Vector(rows * columns), rows, columns, DType::kF32);
  Matrix x = random.Rows(2, columns);
  Matrix out(2, rows);
  const auto weight = backend_->PrepareWeight(stored.source(), WeightFormat::kInt8);
  ASSERT_TRUE(weight.ok());
  backend_->MatMul({.weight = weight->get(), .x = x.rows(), .out = out.rows()});
  for (int t = 0; t < 2; ++t) {
    for (int r = 0; r < rows; ++r) {
      double largest_w = 0, sum = 0, bound = 1e-5;
      for (int c = 0; c < columns; ++c) {
        largest_w = std::max(largest_w, std::fabs(double{stored.at(r, c)}));
      }
      for (int c = 0; c < columns; ++c) {
        double largest_x = 0;
        for (int i = c / 32 * 32; i < std::min(columns, c / 32 * 32 + 32); ++i) {
          largest_x = std::max(largest_x, std::fabs(double{x.at(t, i)}));
        }
        const double w = stored.at(r, c);
        const double half_w = largest_w / 254, half_x = largest_x / 254;
        sum += w * x.at(t, c);
        bound += std::fabs(w) * half_x + std::fabs(double{x.at(t, c)}) * half_w + half_w * half_x;
      }
      ASSERT_NEAR(out.at(t, r), sum, bound);
      ASSERT_GT(std::fabs(out.at(t, r) - sum), 0) << "int8 that loses nothing is not int8";
    }
  }
}

TEST_F(ReferenceTest, Int8OfWholeNumbersIsExact) {
  // Row and group maxima are 127, so every scale is 1.
  const int columns = 70;
  std::vector<float> values(columns);
  Matrix x(1, columns);
  double expected = 0;
  for (int c = 0; c < columns; ++c) {
    values[static_cast<size_t>(c)] = static_cast<float>(c % 2 ? 127 - c : c - 127);
    x.at(0, c) = static_cast<float>(c % 32 == 3 ? -127 : c % 50);
    expected += double{values[static_cast<size_t>(c)]} * double{x.at(0, c)};
  }
  const StoredMatrix stored(values, 1, columns, DType::kF32);
  const auto weight = backend_->PrepareWeight(stored.source(), WeightFormat::kInt8);
  ASSERT_TRUE(weight.ok());
  Matrix out(1, 1);
  backend_->MatMul({.weight = weight->get(), .x = x.rows(), .out = out.rows()});
  EXPECT_EQ(out.at(0, 0), expected);
}

TEST_F(ReferenceTest, Int8RefusesWeightsThatAreNotFinite) {
  const StoredMatrix stored({1, 2, 3, NAN}, 2, 2, DType::kF32);
  const auto weight = backend_->PrepareWeight(stored.source(), WeightFormat::kInt8);
  EXPECT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(weight.status().message().find("test.weight: row 1, column 1"), std::string::npos)
      << weight.status();
}

TEST_F(ReferenceTest, NormsHaveTheRightMeanAndSpread) {
  Random random(3);
  Matrix x = random.Rows(2, 100);
  const std::vector<float> gain = random.Vector(100), bias = random.Vector(100);
  for (const bool layer_norm : {false, true}) {
    Matrix out(2, 100);
    backend_->Norm({.x = x.rows(),
                    .gain = gain,
                    .bias = bias,
                    .subtract_mean = layer_norm,
                    .epsilon = 1e-3f,
                    .out = out.rows()});
    for (int t = 0; t < 2; ++t) {
      double mean = 0, square = 0;
      for (int c = 0; c < 100; ++c) mean += layer_norm ? x.at(t, c) / 100.0 : 0.0;
      for (int c = 0; c < 100; ++c) square += (x.at(t, c) - mean) * (x.at(t, c) - mean) / 100.0;
      for (size_t c = 0; c < 100; ++c) {
        const double unit = (x.at(t, static_cast<int>(c)) - mean) / std::sqrt(square + 1e-3);
        ASSERT_NEAR(out.at(t, static_cast<int>(c)), unit * gain[c] + bias[c], 2e-6);
      }
    }
  }
}

TEST_F(ReferenceTest, RopeTurnsPairsByPositionTimesFrequency) {
  const Step step({{.first_position = 1000, .tokens = 3}}, TestLimits());
  backend_->UploadStep(step.table());
  for (const bool interleaved : {false, true}) {
    const auto table = backend_->MakeRopeTable(
        {.inverse_frequencies = {1.0f, 0.3f}, .max_positions = 1003, .interleaved = interleaved});
    ASSERT_TRUE(table.ok());
    Random random(4);
    Matrix x = random.Rows(3, 2 * 6);  // two heads of 6 dims, the last two pass through
    Matrix before = x;
    backend_->Rope({.x = x.rows(), .num_heads = 2, .head_dim = 6, .table = table->get()});
    for (int t = 0; t < 3; ++t) {
      for (int head = 0; head < 2; ++head) {
        for (int i = 0; i < 2; ++i) {
          const int a = head * 6 + (interleaved ? 2 * i : i);
          const int b = head * 6 + (interleaved ? 2 * i + 1 : i + 2);
          const double angle = (1000 + t) * double{i == 0 ? 1.0f : 0.3f};
          const double u = before.at(t, a), v = before.at(t, b);
          ASSERT_NEAR(x.at(t, a), u * std::cos(angle) - v * std::sin(angle), 1e-4);
          ASSERT_NEAR(x.at(t, b), v * std::cos(angle) + u * std::sin(angle), 1e-4);
        }
        ASSERT_EQ(x.at(t, head * 6 + 4), before.at(t, head * 6 + 4));
      }
    }
  }
}

// Softmax over all visible keys at once, in double.
TEST_F(ReferenceTest, AttentionIsTheSoftmaxOfScoresTimesValues) {
  const int length = 900, dim = 24, window = 700;
  Random random(5);
  Matrix keys = random.Rows(length, dim), values = random.Rows(length, dim);
  Matrix queries = random.Rows(length, 2 * dim);
  const auto cache = backend_->AllocateKv({.num_blocks = 60, .num_kv_heads = 1, .head_dim = dim});
  ASSERT_TRUE(cache.ok());
  std::vector<int32_t> blocks(60);
  for (int i = 0; i < 60; ++i) blocks[static_cast<size_t>(i)] = 59 - i;
  Matrix out(length, 2 * dim);
  for (int first = 0; first < length; first += 150) {
    const Step step({{.first_position = first, .tokens = 150, .blocks = blocks}}, TestLimits());
    const auto slice = [&](Rows rows) {
      return Rows{rows.row(first), 150, rows.columns, rows.stride};
    };
    backend_->UploadStep(step.table());
    backend_->WriteKv(
        {.keys = slice(keys.rows()), .values = slice(values.rows()), .cache = cache->get()});
    backend_->Attention({.queries = slice(queries.rows()),
                         .cache = cache->get(),
                         .num_heads = 2,
                         .score_scale = 0.2f,
                         .window = window,
                         .out = slice(out.rows())});
  }
  for (const int t : {0, 1, 15, 16, 511, 512, 513, 700, 899}) {
    for (int head = 0; head < 2; ++head) {
      std::vector<double> weights(static_cast<size_t>(length));
      double total = 0;
      for (int j = std::max(0, t - window + 1); j <= t; ++j) {
        double score = 0;
        for (int d = 0; d < dim; ++d) {
          score += double{queries.at(t, head * dim + d)} * double{keys.at(j, d)};
        }
        total += weights[static_cast<size_t>(j)] = std::exp(score * double{0.2f});
      }
      for (int d = 0; d < dim; ++d) {
        double expected = 0;
        for (int j = 0; j <= t; ++j) expected += weights[static_cast<size_t>(j)] * values.at(j, d);
        ASSERT_NEAR(out.at(t, head * dim + d), expected / total, 2e-6) << "token " << t;
      }
    }
  }
}

}  // namespace
}  // namespace sauva
