// Every kernel of the cpu backend against the reference backend: equal bits, for each
// instruction set, number of threads, storage type and awkward size.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/factory.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

using testing::Candidate;
using testing::Candidates;
using testing::ExpectSameBits;
using testing::Matrix;
using testing::Random;
using testing::Step;
using testing::StoredMatrix;
using testing::TestLimits;

constexpr int kMaxColumns = 3000;
constexpr int kVocabulary = 512;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class BackendEqualityTest : public ::testing::TestWithParam<Candidate> {
 protected:
  void SetUp() override {
    for (Backend* backend : {reference_.get(), cpu_.get()}) {
      ASSERT_TRUE(backend->Reserve(TestLimits(), kMaxColumns, kVocabulary).ok());
    }
  }

  struct MatMulCase {
    int rows, columns, tokens;
    DType dtype = DType::kF32;
    WeightFormat format = WeightFormat::kNative;
    bool bias = false;
  };
  static std::string Describe(const MatMulCase& c) {
    return std::to_string(c.rows) + " x " + std::to_string(c.columns) + ", " +
           std::to_string(c.tokens) + " tokens, " + Name(c.dtype) +
           (c.format == WeightFormat::kInt8 ? " as int8" : "");
  }
  void CompareMatMul(const MatMulCase& c, Matrix& x) {
    Random random(7);
    const StoredMatrix stored(random.Vector(c.rows * c.columns), c.rows, c.columns, c.dtype);
    const std::vector<float> bias = random.Vector(c.bias ? c.rows : 0);
    Matrix expected(c.tokens, c.rows);
    Matrix actual(c.tokens, c.rows);
    Multiply(*reference_, stored, c.format, bias, x, expected);
    Multiply(*cpu_, stored, c.format, bias, x, actual);
    ExpectSameBits(expected, actual, Describe(c));
  }
  static void Multiply(Backend& backend, const StoredMatrix& stored, WeightFormat format,
                       std::span<const float> bias, Matrix& x, Matrix& out) {
    const auto weight = backend.PrepareWeight(stored.source(), format);
    ASSERT_TRUE(weight.ok()) << weight.status();
    backend.MatMul({.weight = weight->get(), .x = x.rows(), .bias = bias, .out = out.rows()});
  }

  std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
  std::unique_ptr<Backend> cpu_ = GetParam().make();
};

INSTANTIATE_TEST_SUITE_P(Cpu, BackendEqualityTest, ::testing::ValuesIn(Candidates()),
                         [](const auto& candidate) { return candidate.param.name; });

TEST_P(BackendEqualityTest, MatMulOfAnySizeAndType) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const WeightFormat format : {WeightFormat::kNative, WeightFormat::kInt8}) {
      for (const int columns : {1, 15, 16, 17, 31, 32, 33, 64, 100}) {
        for (const int rows : {1, 7, 16, 37}) {
          for (const int tokens : {1, 2, 5, 6, 7, 13}) {
            Random random(static_cast<uint32_t>(columns * 100 + tokens));
            Matrix x = random.Rows(tokens, columns);
            CompareMatMul({.rows = rows,
                           .columns = columns,
                           .tokens = tokens,
                           .dtype = dtype,
                           .format = format,
                           .bias = rows % 2 == 0},
                          x);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST_P(BackendEqualityTest, MatMulLargeEnoughForSeveralTilesAndThreads) {
  for (const WeightFormat format : {WeightFormat::kNative, WeightFormat::kInt8}) {
    for (const int tokens : {1, 3, 29}) {
      Random random(3);
      Matrix x = random.Rows(tokens, 520);
      CompareMatMul(
          {.rows = 301, .columns = 520, .tokens = tokens, .dtype = DType::kF16, .format = format},
          x);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(BackendEqualityTest, MatMulOfHugeTinyAndUndefinedNumbers) {
  for (const float odd : {kInfinity, -kInfinity, kNan, 1e38f, 1e-38f, -1e-45f, 0.0f, -0.0f}) {
    for (const WeightFormat format : {WeightFormat::kNative, WeightFormat::kInt8}) {
      for (const int columns : {5, 64, 75}) {
        Random random(5);
        Matrix x = random.Rows(2, columns);
        x.at(0, 3) = odd;
        for (int i = 0; i < columns; ++i) x.at(1, i) = odd;
        CompareMatMul({.rows = 20, .columns = columns, .tokens = 2, .format = format}, x);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(BackendEqualityTest, NormOfAnyWidth) {
  for (const int columns : {1, 15, 16, 17, 33, 256, 1000}) {
    for (const bool layer_norm : {false, true}) {
      for (const bool with_bias : {false, true}) {
        Random random(static_cast<uint32_t>(columns));
        Matrix x = random.Rows(40, columns);
        const std::vector<float> gain = random.Vector(columns);
        const std::vector<float> bias = random.Vector(with_bias ? columns : 0);
        Matrix expected(40, columns);
        const auto args = [&](Rows out) {
          return NormArgs{.x = x.rows(),
                          .gain = gain,
                          .bias = bias,
                          .subtract_mean = layer_norm,
                          .epsilon = 1e-5f,
                          .out = out};
        };
        reference_->Norm(args(expected.rows()));
        cpu_->Norm(args(x.rows()));  // in place
        ExpectSameBits(expected, x, "norm of " + std::to_string(columns));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(BackendEqualityTest, ActivationsIncludingTheirExtremes) {
  for (const GateKind kind :
       {GateKind::kSilu, GateKind::kGelu, GateKind::kGeluTanh, GateKind::kRelu}) {
    for (const int columns : {1, 16, 17, 400}) {
      Random random(11);
      Matrix gate = random.Rows(13, columns);
      for (int c = 0; c < columns; ++c) gate.at(1, c) *= 40;
      const float odd[] = {0.0f,   -0.0f,     100.0f,     -100.0f, 3e38f,
                           -3e38f, kInfinity, -kInfinity, kNan};
      for (int i = 0; i < 9; ++i) gate.at(i, 0) = odd[i];
      Matrix up = random.Rows(13, columns);
      Matrix expected(13, columns);
      Matrix plain(13, columns);
      reference_->Activate({.kind = kind, .gate = gate.rows(), .out = plain.rows()});
      reference_->Activate(
          {.kind = kind, .gate = gate.rows(), .up = up.rows(), .out = expected.rows()});
      cpu_->Activate({.kind = kind, .gate = gate.rows(), .up = up.rows(), .out = up.rows()});
      ExpectSameBits(expected, up, "gated activation");
      cpu_->Activate({.kind = kind, .gate = gate.rows(), .out = gate.rows()});
      ExpectSameBits(plain, gate, "plain activation");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(BackendEqualityTest, RopeOfBothLayoutsAndPartOfTheHead) {
  const Step step({{.first_position = 90, .tokens = 21}}, TestLimits());
  reference_->UploadStep(step.table());
  cpu_->UploadStep(step.table());
  for (const bool interleaved : {false, true}) {
    for (const int pairs : {1, 8, 16, 17, 24}) {
      Random random(13);
      RopeShape shape{.max_positions = 111, .interleaved = interleaved};
      for (int i = 0; i < pairs; ++i) {
        shape.inverse_frequencies.push_back(1.0f / static_cast<float>(1 + i * i));
      }
      const int head_dim = 2 * pairs + 5;
      Matrix expected = random.Rows(step.num_tokens(), 3 * head_dim);
      Matrix actual = expected;
      for (const auto& [backend, x] :
           {std::pair{reference_.get(), &expected}, std::pair{cpu_.get(), &actual}}) {
        const auto table = backend->MakeRopeTable(shape);
        ASSERT_TRUE(table.ok()) << table.status();
        backend->Rope(
            {.x = x->rows(), .num_heads = 3, .head_dim = head_dim, .table = table->get()});
      }
      ExpectSameBits(expected, actual, "rope of " + std::to_string(pairs) + " pairs");
      if (HasFatalFailure()) return;
    }
  }
}

// Embeds tokens, adds y, selects rows and multiplies them by the embedding: a tied head.
struct Tied {
  explicit Tied(int columns) : hidden(5, columns), selected(2, columns), logits(2, 10) {}
  void Run(Backend& backend, const WeightSource& source, WeightFormat format, Matrix y) {
    const auto weight = backend.PrepareWeight(source, format);
    ASSERT_TRUE(weight.ok()) << weight.status();
    backend.GatherRows(**weight, 1.3f, hidden.rows());
    backend.Add(hidden.rows(), y.rows());
    backend.SelectSampledRows(hidden.rows(), selected.rows());
    backend.MatMul({.weight = weight->get(), .x = selected.rows(), .out = logits.rows()});
  }
  Matrix hidden, selected, logits;
};

TEST_P(BackendEqualityTest, OneWeightGathersRowsAndMultiplies) {
  Step step({{.tokens = 5}}, TestLimits());
  step.token_ids() = {3, 0, 9, 9, 5};
  step.sampled_rows() = {4, 1};
  reference_->UploadStep(step.table());
  cpu_->UploadStep(step.table());
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const WeightFormat format : {WeightFormat::kNative, WeightFormat::kInt8}) {
      for (const int columns : {1, 16, 50}) {
        Random random(17);
        const StoredMatrix table(random.Vector(10 * columns), 10, columns, dtype);
        const Matrix y = random.Rows(5, columns);
        Tied expected(columns), actual(columns);
        expected.Run(*reference_, table.source(), format, y);
        actual.Run(*cpu_, table.source(), format, y);
        ExpectSameBits(expected.hidden, actual.hidden, "embedding");
        ExpectSameBits(expected.selected, actual.selected, "selected rows");
        ExpectSameBits(expected.logits, actual.logits, "tied head");
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Equal logits, and those that are no numbers, are where a search in parallel goes wrong.
TEST_P(BackendEqualityTest, RowsThatTakeTheirLikeliestTokenAgree) {
  for (const int columns : {1, 2, 127, 128, 129, 511, kVocabulary}) {
    Random random(29);
    Matrix logits = random.Rows(4, columns);
    float* tied = logits.rows().row(1);
    for (int i = 0; i < columns; ++i) tied[i] = static_cast<float>((i * 7) % 5);
    float* odd = logits.rows().row(2);
    for (int i = 0; i < columns; i += 2) odd[i] = i % 4 == 0 ? kNan : kInfinity;
    float* none = logits.rows().row(3);
    for (int i = 0; i < columns; ++i) none[i] = i % 2 == 0 ? kNan : -kInfinity;
    for (const bool all_greedy : {true, false}) {
      std::vector<SampleRow> rows(4, {.temperature = 0});
      if (!all_greedy) rows[0] = {.temperature = 1, .seed = 5};
      std::vector<SampleResult> expected(4), actual(4);
      Matrix copy = logits;
      reference_->Sample(copy.rows(), rows, expected);
      copy = logits;
      cpu_->Sample(copy.rows(), rows, actual);
      for (size_t i = 0; i < rows.size(); ++i) {
        EXPECT_EQ(expected[i].token, actual[i].token) << columns << " tokens, row " << i;
      }
    }
  }
}

TEST_P(BackendEqualityTest, CopiesToAndFromTheHostKeepEveryNumber) {
  Random random(23);
  Matrix x = random.Rows(4, 33);
  Matrix back(4, 33);
  std::vector<float> host(4 * 33);
  cpu_->CopyToHost(x.rows(), host.data());
  EXPECT_EQ(host[33 + 7], x.at(1, 7));
  cpu_->CopyFromHost(host.data(), back.rows());
  ExpectSameBits(x, back, "copies");
}

}  // namespace
}  // namespace sauva
