// Matrices of f16 and bf16 on matrix units: within the error that the
// rounding of activations allows, and every row the same whoever is beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/factory.h"
#include "kernels/weight_source.h"
#include "tests/cuda/fast_candidates.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

using testing::ExpectSameBits;
using testing::Matrix;
using testing::Random;
using testing::StoredMatrix;

constexpr int kMaxColumns = 3000;
constexpr int kVocabulary = 64;

// A type of weights that a candidate has matrix units for, and what rounding to it may do to a
// number: half of its last place.
struct Units {
  testing::FastCandidate candidate;
  DType dtype;
  float rounding;

  std::string Describe() const {
    return std::string(Name(dtype)) + ", sm_" + std::to_string(candidate.compute_capability);
  }
};

std::vector<Units> AllUnits() {
  std::vector<Units> units;
  for (const testing::FastCandidate& candidate : testing::FastCandidates()) {
    units.push_back({candidate, DType::kF16, 0x1p-11f});
    if (candidate.compute_capability >= 80) units.push_back({candidate, DType::kBF16, 0x1p-8f});
  }
  return units;
}

std::unique_ptr<Backend> Fast(const testing::FastCandidate& candidate) {
  auto backend = candidate.make();
  const StepLimits limits = {.max_tokens = 300, .max_sequences = 16, .max_blocks_per_sequence = 10};
  EXPECT_TRUE(backend->Reserve(limits, kMaxColumns, kVocabulary).ok());
  return backend;
}

void Multiply(Backend& backend, const StoredMatrix& stored, std::span<const float> bias, Matrix& x,
              Matrix& out) {
  const auto weight = backend.PrepareWeight(stored.source(), WeightFormat::kNative);
  ASSERT_TRUE(weight.ok()) << weight.status();
  backend.MatMul({.weight = weight->get(), .x = x.rows(), .bias = bias, .out = out.rows()});
}

// How far an answer is from the exact one: at most, as a share of the bound, and on average,
// as a share of the answers themselves.
struct Error {
  double most = 0;
  double squares = 0;
  double answers = 0;

  double Average() const { return std::sqrt(squares / answers); }
};

// Compares with the sum in double. The bound: every activation is rounded once, and each of
// the additions (8 products each) cuts off less than a last place of f32.
void Compare(const StoredMatrix& stored, std::span<const float> bias, Matrix& x, Matrix& out,
             float rounding, Error& error) {
  const int columns = x.num_columns();
  std::vector<float> weight(static_cast<size_t>(columns));
  for (int r = 0; r < out.num_columns(); ++r) {
    ReadRow(stored.source(), r, weight);
    const double add = bias.empty() ? 0.0 : double{bias[static_cast<size_t>(r)]};
    for (int t = 0; t < out.num_rows(); ++t) {
      double sum = 0;
      double magnitudes = 0;
      for (int c = 0; c < columns; ++c) {
        const double product = double{weight[static_cast<size_t>(c)]} * double{x.at(t, c)};
        sum += product;
        magnitudes += std::fabs(product);
      }
      const double difference = std::fabs(double{out.at(t, r)} - (sum + add));
      const double additions = columns / 8.0 + 3;
      const double bound = (double{rounding} + additions * 0x1p-23) * (magnitudes + std::fabs(add));
      error.most = std::max(error.most, bound == 0 ? difference : difference / bound);
      error.squares += difference * difference;
      error.answers += sum * sum;
    }
  }
}

TEST(FastMatMulTest, AnySizeIsWithinTheBound) {
  for (const Units& units : AllUnits()) {
    const auto backend = Fast(units.candidate);
    Error error;
    for (const int columns : {1, 33, 64, 65, 200}) {
      for (const int rows : {1, 8, 9, 70}) {
        for (const int tokens : {1, 2, 8, 9, 17, 33, 65}) {
          Random random(static_cast<uint32_t>(columns * 100 + tokens));
          const StoredMatrix stored(random.Vector(rows * columns), rows, columns, units.dtype);
          const std::vector<float> bias = random.Vector(rows % 2 == 0 ? rows : 0);
          Matrix x = random.Rows(tokens, columns);
          Matrix out(tokens, rows);
          Multiply(*backend, stored, bias, x, out);
          Compare(stored, bias, x, out, units.rounding, error);
          ASSERT_LE(error.most, 1)
              << rows << " x " << columns << ", " << tokens << " tokens of " << Name(units.dtype);
        }
      }
    }
    EXPECT_GT(error.most, 0.01);  // or nothing was rounded
  }
}

TEST(FastMatMulTest, LargeEnoughForSeveralTilesOfEachSize) {
  for (const Units& units : AllUnits()) {
    const auto backend = Fast(units.candidate);
    Error error;
    // The last has so many tiles of 128 x 128 that those are taken.
    for (const auto& [rows, columns, tokens] :
         {std::tuple{150, 1000, 20}, {150, 1000, 140}, {5500, 40, 290}}) {
      Random random(3);
      const StoredMatrix stored(random.Vector(rows * columns), rows, columns, units.dtype);
      Matrix x = random.Rows(tokens, columns);
      Matrix out(tokens, rows);
      Multiply(*backend, stored, {}, x, out);
      Compare(stored, {}, x, out, units.rounding, error);
      ASSERT_LE(error.most, 1) << tokens << " tokens of " << Name(units.dtype);
    }
    std::printf("%s: average error %.1e of the answers, at most %.3f of the bound\n",
                units.Describe().c_str(), error.Average(), error.most);
    EXPECT_LT(error.Average(), 0.6 * double{units.rounding});
  }
}

// A row alone, and in batches that take each of the tiles.
TEST(FastMatMulTest, ARowsAnswerDoesNotDependOnTheOthers) {
  for (const Units& units : AllUnits()) {
    const auto backend = Fast(units.candidate);
    for (const auto& [rows, columns, most_tokens] : {std::tuple{77, 333, 130}, {5500, 64, 300}}) {
      Random random(4);
      const StoredMatrix stored(random.Vector(rows * columns), rows, columns, units.dtype);
      Matrix x = random.Rows(most_tokens, columns);
      Matrix all(most_tokens, rows);
      Multiply(*backend, stored, {}, x, all);
      for (const int tokens : {1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 130}) {
        if (rows > 1000 && tokens > 16) break;  // the large tile meets the others above
        const int first = most_tokens - tokens;
        Matrix some(tokens, columns);
        Matrix expected(tokens, rows);
        Matrix actual(tokens, rows);
        for (int t = 0; t < tokens; ++t) {
          std::copy_n(&x.at(first + t, 0), columns, &some.at(t, 0));
          std::copy_n(&all.at(first + t, 0), rows, &expected.at(t, 0));
        }
        Multiply(*backend, stored, {}, some, actual);
        ExpectSameBits(expected, actual, std::to_string(tokens) + " tokens");
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(FastMatMulTest, HugeAndTinyActivationsNeitherOverflowNorVanish) {
  for (const Units& units : AllUnits()) {
    const auto backend = Fast(units.candidate);
    for (const float size : {1e-30f, 1e-6f, 1e5f, 1e30f}) {
      for (const int tokens : {1, 40}) {
        Random random(5);
        const StoredMatrix stored(random.Vector(9 * 100), 9, 100, units.dtype);
        Matrix x = random.Rows(tokens, 100);
        for (int t = 0; t < tokens; ++t) {
          for (int c = 0; c < 100; ++c) x.at(t, c) *= c == 7 ? 100 * size : size;
        }
        Matrix out(tokens, 9);
        Multiply(*backend, stored, {}, x, out);
        Error error;
        Compare(stored, {}, x, out, units.rounding, error);
        EXPECT_LE(error.most, 1) << "activations of " << size << ", " << Name(units.dtype);
      }
    }
  }
}

TEST(FastMatMulTest, WhatIsNotFiniteStaysInItsRow) {
  for (const Units& units : AllUnits()) {
    const auto backend = Fast(units.candidate);
    for (const float odd :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      Random random(6);
      const StoredMatrix stored(random.Vector(9 * 100), 9, 100, units.dtype);
      Matrix x = random.Rows(3, 100);
      x.at(1, 50) = odd;
      for (int c = 0; c < 100; ++c) x.at(2, c) = 0;
      Matrix out(3, 9);
      Multiply(*backend, stored, {}, x, out);
      for (int r = 0; r < 9; ++r) {
        EXPECT_TRUE(std::isfinite(out.at(0, r)));
        EXPECT_FALSE(std::isfinite(out.at(1, r)));
        EXPECT_EQ(out.at(2, r), 0);
      }
    }
  }
}

// Everything else has one way to be computed: f32 weights, codes, and bf16 where no unit
// multiplies it.
TEST(FastMatMulTest, OtherWeightsHaveTheBitsOfTheReference) {
  const auto reference = MakeReferenceBackend();
  for (const testing::FastCandidate& candidate : testing::FastCandidates()) {
    const auto backend = Fast(candidate);
    for (const auto& [dtype, tokens] :
         {std::pair{DType::kF32, 1}, {DType::kF32, 40}, {DType::kBF16, 1}, {DType::kBF16, 40}}) {
      if (dtype == DType::kBF16 && candidate.compute_capability >= 80) continue;
      Random random(7);
      const StoredMatrix stored(random.Vector(20 * 100), 20, 100, dtype);
      Matrix x = random.Rows(tokens, 100);
      Matrix expected(tokens, 20);
      Matrix actual(tokens, 20);
      Multiply(*reference, stored, {}, x, expected);
      Multiply(*backend, stored, {}, x, actual);
      ExpectSameBits(expected, actual, Name(dtype));
    }
  }
}

}  // namespace
}  // namespace sauva
