// What a quantized matrix is: its rules, rounding into it, and the reference backend's
// products with it against the same mathematics in double precision.
#include "kernels/quantized_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "kernels/factory.h"
#include "kernels/numerics.h"
#include "kernels/round_to_nearest.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/quantized_testing.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;
using testing::Matrix;
using testing::QuantizedCase;
using testing::Random;
using testing::RandomQuantized;
using testing::SourceOf;
using testing::StoredMatrix;
using testing::TestLimits;

struct Fault {
  const char* message;
  std::function<void(QuantizedMatrix&)> make;
};

TEST(QuantizedMatrixTest, EachBrokenRuleIsNamedWithItsValue) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<Fault> faults = {
      {"a quantized matrix of 0 x 64", [](auto& m) { m.rows = 0; }},
      {"codes of 5 bits", [](auto& m) { m.bits = 5; }},
      {"groups of 33 columns", [](auto& m) { m.group_size = 33; }},
      {"groups of 0 columns", [](auto& m) { m.group_size = 0; }},
      {"1024 codes expected, found 1023", [](auto& m) { m.codes.pop_back(); }},
      {"32 scales expected, found 33", [](auto& m) { m.scales.push_back(1); }},
      {"32 zero points expected, found 0", [](auto& m) { m.zeros.clear(); }},
      {"code 16 at row 2, 5; at most 15", [](auto& m) { m.codes[2 * 64 + 5] = 16; }},
      {"zero point 17 at row 1, 1; at most 16", [](auto& m) { m.zeros[3] = 17; }},
      {"scale inf at row 1, group 0", [=](auto& m) { m.scales[2] = infinity; }},
      {"64 columns in the order expected, found 3",
       [](auto& m) {
         m.column_order = {0, 1, 2};
       }},
      {"entry 1 is 0", [](auto& m) { m.column_order.assign(64, 0); }},
      {"static activation scale 0", [](auto& m) { m.activation = ActivationKind::kInt8Static; }},
      {"outlier threshold 0", [](auto& m) { m.activation = ActivationKind::kLlmInt8; }},
  };
  for (const Fault& fault : faults) {
    QuantizedMatrix matrix = RandomQuantized({});
    matrix.activation_scale = 0;
    matrix.outlier_threshold = 0;
    ASSERT_TRUE(ValidateQuantizedMatrix("layers.0.q", matrix).ok());
    fault.make(matrix);
    const absl::Status status = ValidateQuantizedMatrix("layers.0.q", matrix);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << fault.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tensor layers.0.q: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(fault.message));
  }
}

TEST(QuantizedMatrixTest, BackendsRefuseAMatrixOfAnotherShape) {
  const QuantizedMatrix matrix = RandomQuantized({.rows = 16, .columns = 64});
  const auto cpu = *MakeCpuBackend({.threads = 1});
  const auto reference = MakeReferenceBackend();
  for (Backend* backend : {cpu.get(), reference.get()}) {
    WeightSource source = SourceOf(matrix);
    source.columns = 32;
    const auto weight = backend->PrepareWeight(source, WeightFormat::kNative);
    EXPECT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(weight.status().message()),
                HasSubstr("test.weight: 16 x 32 expected, a quantized matrix of 16 x 64"));
  }
}

TEST(QuantizedMatrixTest, TheFixedPointTableOfNf4IsItsValuesRounded) {
  for (int code = 0; code < 16; ++code) {
    EXPECT_EQ(kNf4Fixed[code], std::lround(double{kNf4Values[code]} * 32639)) << code;
  }
}

// The product in double precision and the most that int8 activations may change it by.
struct Exact {
  double product = 0;
  double bound = 1e-5;
};
Exact ExactProduct(const QuantizedMatrix& m, int64_t row, const float* x) {
  const auto input = [&](int64_t i) {
    return double{x[m.column_order.empty() ? i : m.column_order[static_cast<size_t>(i)]]};
  };
  Exact result;
  for (int64_t i = 0; i < m.columns; ++i) {
    double largest = 0;
    for (int64_t j = i / 32 * 32; j < std::min(m.columns, i / 32 * 32 + 32); ++j) {
      largest = std::max(largest, std::fabs(input(j)));
    }
    const double weight = Dequantize(m, row, i);
    const double scale = m.scales[static_cast<size_t>(row * m.groups() + i / m.group_size)];
    result.product += weight * input(i);
    result.bound += std::fabs(weight) * largest / 254;
    if (m.kind == CodeKind::kNf4) result.bound += 1.3e-5 * std::fabs(scale * input(i));
  }
  return result;
}

TEST(QuantizedMatrixTest, ProductsErrByNoMoreThanTheRoundingOfActivations) {
  const std::unique_ptr<Backend> backend = MakeReferenceBackend();
  ASSERT_TRUE(backend->Reserve(TestLimits(), 512, 64).ok());
  for (const QuantizedCase& kind : testing::EveryCodeKind()) {
    QuantizedCase c = kind;
    c.rows = 7;
    c.columns = 150;
    c.column_order = true;
    const QuantizedMatrix matrix = RandomQuantized(c);
    const auto weight = backend->PrepareWeight(SourceOf(matrix), WeightFormat::kNative);
    ASSERT_TRUE(weight.ok()) << weight.status();
    Random random(4);
    Matrix x = random.Rows(2, c.columns);
    Matrix out(2, c.rows);
    backend->MatMul({.weight = weight->get(), .x = x.rows(), .out = out.rows()});
    for (int t = 0; t < 2; ++t) {
      for (int r = 0; r < c.rows; ++r) {
        const Exact exact = ExactProduct(matrix, r, x.rows().row(t));
        ASSERT_NEAR(out.at(t, r), exact.product, exact.bound) << testing::Describe(c);
        ASSERT_NE(out.at(t, r), exact.product);
      }
    }
  }
}

// Whole numbers lose nothing, so that outliers and the rest must add up to the product.
TEST(QuantizedMatrixTest, LlmInt8KeepsOutliersInFloatAndCountsThemOnce) {
  QuantizedMatrix matrix = RandomQuantized({.bits = 8, .rows = 3, .columns = 70, .group_size = 96});
  matrix.activation = ActivationKind::kLlmInt8;
  matrix.outlier_threshold = 128;
  matrix.scales.assign(3, 1.0f);
  Matrix x(1, 70);
  for (int i = 0; i < 70; ++i) x.at(0, i) = static_cast<float>(i % 7 - 3);
  x.at(0, 0) = 127;      // the largest that is no outlier: scale 1
  x.at(0, 33) = 128;     // the smallest that is one
  x.at(0, 69) = -70000;  // as int8 it would silence all others
  double expected[3] = {};
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 70; ++i) expected[r] += double{Dequantize(matrix, r, i)} * x.at(0, i);
  }
  const std::unique_ptr<Backend> backend = MakeReferenceBackend();
  ASSERT_TRUE(backend->Reserve(TestLimits(), 512, 64).ok());
  const auto weight = backend->PrepareWeight(SourceOf(matrix), WeightFormat::kNative);
  ASSERT_TRUE(weight.ok()) << weight.status();
  Matrix out(1, 3);
  backend->MatMul({.weight = weight->get(), .x = x.rows(), .out = out.rows()});
  for (int r = 0; r < 3; ++r) EXPECT_EQ(out.at(0, r), expected[r]);
}

TEST(QuantizedMatrixTest, StaticScalesClampWhatLiesBeyondThem) {
  QuantizedMatrix matrix = RandomQuantized({.bits = 8, .rows = 1, .columns = 2, .group_size = 32});
  matrix.activation = ActivationKind::kInt8Static;
  matrix.activation_scale = 0.5f;
  matrix.codes = {129, 131};  // 1 and 3
  matrix.zeros = {128};
  matrix.scales = {1.0f};
  Matrix x(1, 2);
  x.at(0, 0) = 1000;
  x.at(0, 1) = -1;
  const std::unique_ptr<Backend> backend = MakeReferenceBackend();
  ASSERT_TRUE(backend->Reserve(TestLimits(), 512, 64).ok());
  const auto weight = backend->PrepareWeight(SourceOf(matrix), WeightFormat::kNative);
  ASSERT_TRUE(weight.ok()) << weight.status();
  Matrix out(1, 1);
  backend->MatMul({.weight = weight->get(), .x = x.rows(), .out = out.rows()});
  EXPECT_EQ(out.at(0, 0), 127 * 0.5f - 3);
}

TEST(RoundToNearestTest, NoWeightIsFurtherThanHalfAStepFromItsCode) {
  Random random(6);
  const StoredMatrix stored(random.Vector(9 * 150), 9, 150, DType::kF16);
  const auto half_step = [](const QuantizedMatrix& m, int64_t row, int64_t column) {
    const double scale = m.scales[static_cast<size_t>(row * m.groups() + column / m.group_size)];
    constexpr double kWidestNf4Gap = 1.0 - 0.6961928;
    const double step = m.kind == CodeKind::kNf4 ? scale * kWidestNf4Gap : scale;
    return 0.5001 * step + 15 * scale * 0x1p-11;  // the step itself was rounded to f16
  };
  for (const QuantizedMatrix& m :
       {*RoundToInt8(stored.source()), *RoundToGroups(stored.source(), 4, 32),
        *RoundToGroups(stored.source(), 3, 64), *RoundToNf4(stored.source(), 64)}) {
    ASSERT_TRUE(ValidateQuantizedMatrix("test", m).ok());
    for (int r = 0; r < 9; ++r) {
      for (int c = 0; c < 150; ++c) {
        ASSERT_NEAR(Dequantize(m, r, c), stored.at(r, c), half_step(m, r, c)) << m.bits << " bits";
      }
    }
  }
}

TEST(RoundToNearestTest, ValuesThatCodesHoldExactlyComeBack) {
  std::vector<float> values(64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = kNf4Values[i % 16] * 0.25f;
  const StoredMatrix nf4(values, 1, 64, DType::kF32);
  const QuantizedMatrix m = *RoundToNf4(nf4.source(), 64);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(Dequantize(m, 0, i), values[static_cast<size_t>(i)]);

  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = (static_cast<float>(i % 16) - 5.0f) * 0.125f;
  }
  const StoredMatrix integers(values, 1, 64, DType::kF32);
  const QuantizedMatrix four = *RoundToGroups(integers.source(), 4, 32);
  EXPECT_EQ(four.zeros, std::vector<uint8_t>({5, 5}));
  for (int i = 0; i < 64; ++i) EXPECT_EQ(Dequantize(four, 0, i), values[static_cast<size_t>(i)]);
}

TEST(RoundToNearestTest, GroupsOfZerosTinyAndHugeNumbersKeepTheirSense) {
  for (const float value : {0.0f, 1e-44f, 1e-30f, -3e38f, 3e38f}) {
    const StoredMatrix stored(std::vector<float>(40, value), 1, 40, DType::kF32);
    for (const QuantizedMatrix& m :
         {*RoundToInt8(stored.source()), *RoundToGroups(stored.source(), 4, 32),
          *RoundToGroups(stored.source(), 3, 32), *RoundToNf4(stored.source(), 32)}) {
      ASSERT_TRUE(ValidateQuantizedMatrix("test", m).ok()) << value;
      EXPECT_NEAR(Dequantize(m, 0, 39), value, std::fabs(value) * 1e-3 + 1e-6) << m.bits;
    }
  }
}

TEST(QuantizedMatrixTest, ActivationsAreGroupedAsTheWeightIsWherePossible) {
  for (const auto& [group_size, expected] : std::vector<std::pair<int, int>>{{32, 32},
                                                                             {64, 64},
                                                                             {96, 32},
                                                                             {128, 128},
                                                                             {192, 64},
                                                                             {256, 128},
                                                                             {300, 128},
                                                                             {1 << 20, 128}}) {
    const QuantizedMatrix matrix{.rows = 1, .columns = 300, .group_size = group_size};
    EXPECT_EQ(ActivationGroup(matrix), expected) << group_size;
  }
}

TEST(RoundToNearestTest, RefusesWhatItCannotRound) {
  const StoredMatrix nan({1, 2, 3, NAN}, 2, 2, DType::kF32);
  EXPECT_THAT(std::string(RoundToNf4(nan.source(), 64).status().message()),
              HasSubstr("test.weight: row 1, column 1 is not finite"));
  const StoredMatrix wide(std::vector<float>(100, 1.0f), 1, 100, DType::kF32);
  EXPECT_THAT(std::string(RoundToGroups(wide.source(), 4, 48).status().message()),
              HasSubstr("groups of 48 columns"));
  EXPECT_THAT(std::string(RoundToGroups(wide.source(), 40, 32).status().message()),
              HasSubstr("codes of 40 bits"));
}

}  // namespace
}  // namespace sauva
