// Products with quantized matrices of every kind: the cpu backend equals the reference
// backend bit for bit, for each instruction set, number of threads and awkward size.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <sstream>

#include "kernels/factory.h"
#include "kernels/quantized_matrix.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/quantized_testing.h"

namespace sauva {
namespace {

using testing::Candidate;
using testing::Candidates;
using testing::ExpectSameBits;
using testing::Matrix;
using testing::QuantizedCase;
using testing::Random;
using testing::RandomQuantized;
using testing::SourceOf;
using testing::Step;
using testing::TestLimits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class QuantizedEqualityTest : public ::testing::TestWithParam<Candidate> {
 protected:
  void SetUp() override {
    for (Backend* backend : {reference_.get(), cpu_.get()}) {
      ASSERT_TRUE(backend->Reserve(TestLimits(), 3000, 64).ok());
    }
  }

  void Compare(const QuantizedMatrix& matrix, Matrix& x, const std::string& what) {
    Random random(9);
    const auto rows = static_cast<int>(matrix.rows);
    const std::vector<float> bias = random.Vector(rows % 2 == 0 ? rows : 0);
    Matrix expected(x.num_rows(), rows);
    Matrix actual(x.num_rows(), rows);
    Multiply(*reference_, matrix, bias, x, expected);
    Multiply(*cpu_, matrix, bias, x, actual);
    ExpectSameBits(expected, actual, what);
  }
  static void Multiply(Backend& backend, const QuantizedMatrix& matrix, std::span<const float> bias,
                       Matrix& x, Matrix& out) {
    const auto weight = backend.PrepareWeight(SourceOf(matrix), WeightFormat::kNative);
    ASSERT_TRUE(weight.ok()) << weight.status();
    backend.MatMul({.weight = weight->get(), .x = x.rows(), .bias = bias, .out = out.rows()});
  }
  void CompareCase(const QuantizedCase& c, int tokens) {
    Random random(static_cast<uint32_t>(c.columns * 100 + tokens));
    Matrix x = random.Rows(tokens, c.columns);
    Compare(RandomQuantized(c), x,
            testing::Describe(c) + ", " + std::to_string(tokens) + " tokens");
  }

  std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
  std::unique_ptr<Backend> cpu_ = GetParam().make();
};

INSTANTIATE_TEST_SUITE_P(Cpu, QuantizedEqualityTest, ::testing::ValuesIn(Candidates()),
                         [](const auto& candidate) { return candidate.param.name; });

TEST_P(QuantizedEqualityTest, EveryCodeKindAtAnySize) {
  for (const QuantizedCase& kind : testing::EveryCodeKind()) {
    for (const int columns : {1, 31, 32, 33, 64, 100, 160}) {
      for (const int rows : {1, 15, 16, 17, 37}) {
        for (const int tokens : {1, 2, 7}) {
          QuantizedCase c = kind;
          c.rows = rows;
          c.columns = columns;
          CompareCase(c, tokens);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(QuantizedEqualityTest, EveryNumberOfTokensUpToSeveralRegisterTiles) {
  for (const QuantizedCase& kind : testing::EveryCodeKind()) {
    QuantizedCase c = kind;
    c.rows = 65;
    c.columns = 224;
    for (int tokens = 1; tokens <= 33; ++tokens) {
      CompareCase(c, tokens);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(QuantizedEqualityTest, LargeEnoughForSeveralTilesAndThreads) {
  for (const QuantizedCase& kind : testing::EveryCodeKind()) {
    for (const int tokens : {1, 3, 29, 150}) {
      QuantizedCase c = kind;
      c.rows = 301;
      c.columns = 520;
      CompareCase(c, tokens);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(QuantizedEqualityTest, RowsLongerThanWhatIsUnpackedAtOnce) {
  for (const QuantizedCase& kind : testing::EveryCodeKind()) {
    for (const int group_size : {96, 1 << 20}) {
      for (const int tokens : {1, 19}) {
        QuantizedCase c = kind;
        c.rows = 33;
        c.columns = 1700;
        c.group_size = group_size;
        CompareCase(c, tokens);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(QuantizedEqualityTest, EveryGroupSizeWithAndWithoutHalfScales) {
  for (const int group_size : {32, 64, 96, 128, 256, 1000}) {
    for (const bool half_scales : {false, true}) {
      for (const bool symmetric : {false, true}) {
        CompareCase({.rows = 40,
                     .columns = 300,
                     .group_size = group_size,
                     .half_scales = half_scales,
                     .symmetric = symmetric},
                    5);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(QuantizedEqualityTest, EveryActivationKindWithOutliersAndColumnOrder) {
  for (const ActivationKind activation :
       {ActivationKind::kInt8Groups, ActivationKind::kInt8Static, ActivationKind::kLlmInt8}) {
    for (const QuantizedCase& kind : testing::EveryCodeKind()) {
      QuantizedCase c = kind;
      c.rows = 50;
      c.columns = 200;
      c.activation = activation;
      c.column_order = true;
      Random random(31);
      Matrix x = random.Rows(4, c.columns);
      for (const int column : {0, 31, 64, 199}) x.at(1, column) *= 40;
      for (int column = 0; column < c.columns; ++column) x.at(2, column) *= 1e-6f;
      Compare(RandomQuantized(c), x, testing::Describe(c));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(QuantizedEqualityTest, HugeTinyAndUndefinedActivations) {
  for (const float odd : {kInfinity, -kInfinity, kNan, 3e38f, 1e-38f, -1e-45f, 0.0f, -0.0f}) {
    for (const ActivationKind activation :
         {ActivationKind::kInt8Groups, ActivationKind::kInt8Static, ActivationKind::kLlmInt8}) {
      QuantizedCase c = {.rows = 20, .columns = 75, .activation = activation};
      Random random(5);
      Matrix x = random.Rows(2, c.columns);
      x.at(0, 3) = odd;
      for (int i = 0; i < c.columns; ++i) x.at(1, i) = odd;
      Compare(RandomQuantized(c), x, testing::Describe(c) + " of " + std::to_string(odd));
      if (HasFatalFailure()) return;
    }
  }
}

// Some take the same codes of the rows, their neighbours others.
TEST_P(QuantizedEqualityTest, ProductsOfTheSameRows) {
  constexpr int kColumns = 200;
  std::vector<QuantizedMatrix> matrices;
  const auto add = [&](QuantizedCase c) -> QuantizedMatrix& {
    c.columns = kColumns;
    matrices.push_back(RandomQuantized(c));
    return matrices.back();
  };
  for (const int rows : {301, 40, 40, 16}) add({.rows = rows, .symmetric = true});
  add({.rows = 48});  // zero points
  add({.bits = 8, .rows = 33, .group_size = 1 << 20, .symmetric = true});
  for (int i = 0; i < 2; ++i) add({.rows = 35, .symmetric = true, .column_order = true});
  std::ranges::reverse(add({.rows = 35, .symmetric = true, .column_order = true}).column_order);
  for (int i = 0; i < 2; ++i) {
    add({.bits = 8, .rows = 20, .symmetric = true, .activation = ActivationKind::kLlmInt8});
  }
  matrices.back().outlier_threshold = 1;
  for (int i = 0; i < 3; ++i) {
    add({.bits = 8, .rows = 20, .symmetric = true, .activation = ActivationKind::kInt8Static});
  }
  matrices.back().activation_scale = 0.03f;
  for (const int tokens : {1, 5, 70}) {
    Random random(static_cast<uint32_t>(tokens));
    Matrix x = random.Rows(tokens, kColumns);
    std::vector<std::unique_ptr<Weight>> weights;
    std::vector<Matrix> outs;
    std::vector<MatMulArgs> products;
    outs.reserve(matrices.size());
    for (const QuantizedMatrix& matrix : matrices) {
      auto weight = cpu_->PrepareWeight(SourceOf(matrix), WeightFormat::kNative);
      ASSERT_TRUE(weight.ok()) << weight.status();
      weights.push_back(*std::move(weight));
      outs.emplace_back(tokens, static_cast<int>(matrix.rows));
      products.push_back(
          {.weight = weights.back().get(), .x = x.rows(), .out = outs.back().rows()});
    }
    cpu_->MatMulAll(products);
    for (size_t i = 0; i < matrices.size(); ++i) {
      Matrix expected(tokens, static_cast<int>(matrices[i].rows));
      Multiply(*reference_, matrices[i], {}, x, expected);
      ExpectSameBits(expected, outs[i], "product " + std::to_string(i));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(QuantizedEqualityTest, RowsOfAQuantizedTable) {
  Step step({{.tokens = 5}}, TestLimits());
  step.token_ids() = {3, 0, 19, 19, 5};
  reference_->UploadStep(step.table());
  cpu_->UploadStep(step.table());
  for (const QuantizedCase& kind : testing::EveryCodeKind()) {
    QuantizedCase c = kind;
    c.rows = 20;
    c.columns = 70;
    c.column_order = true;
    const QuantizedMatrix table = RandomQuantized(c);
    Matrix expected(5, c.columns), actual(5, c.columns);
    for (const auto& [backend, out] :
         {std::pair{reference_.get(), &expected}, std::pair{cpu_.get(), &actual}}) {
      const auto weight = backend->PrepareWeight(SourceOf(table), WeightFormat::kNative);
      ASSERT_TRUE(weight.ok()) << weight.status();
      backend->GatherRows(**weight, 1.3f, out->rows());
    }
    ExpectSameBits(expected, actual, "rows of " + testing::Describe(c));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace sauva
