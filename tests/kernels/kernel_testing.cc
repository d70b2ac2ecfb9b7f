#include "tests/kernels/kernel_testing.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/half.h"
#include "kernels/weight_source.h"

namespace sauva::testing {
namespace {

// Rounds to nearest even; tests store no NaN.
uint16_t FloatToBFloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace

Matrix::Matrix(int rows, int columns)
    : rows_(rows),
      columns_(columns),
      stride_(columns + 3),
      values_(static_cast<size_t>(rows * stride_), 12345.0f) {}

float Random::Normal() {
  float sum = 0;  // of 4 uniform numbers: near enough, and the same everywhere
  for (int i = 0; i < 4; ++i) sum += static_cast<float>(engine_() >> 8) * 0x1p-24f - 0.5f;
  return sum * 1.7320508f;
}

std::vector<float> Random::Vector(int n) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = Normal();
  return values;
}

Matrix Random::Rows(int rows, int columns) {
  Matrix matrix(rows, columns);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) matrix.at(r, c) = Normal();
  }
  return matrix;
}

StoredMatrix::StoredMatrix(const std::vector<float>& values, int rows, int columns, DType dtype)
    : rows_(rows), columns_(columns), dtype_(dtype) {
  const auto size = static_cast<size_t>(SizeOf(dtype));
  bytes_.resize(1 + values.size() * size);
  for (size_t i = 0; i < values.size(); ++i) {
    std::byte* at = bytes_.data() + 1 + i * size;
    if (dtype == DType::kF32) {
      std::memcpy(at, &values[i], size);
      continue;
    }
    const uint16_t bits =
        dtype == DType::kF16 ? FloatToHalf(values[i]) : FloatToBFloat16(values[i]);
    std::memcpy(at, &bits, size);
  }
}

WeightSource StoredMatrix::source() const {
  return {.name = "test.weight",
          .dtype = dtype_,
          .rows = rows_,
          .columns = columns_,
          .bytes = std::span(bytes_).subspan(1)};
}

float StoredMatrix::at(int row, int column) const {
  std::vector<float> values(static_cast<size_t>(columns_));
  ReadRow(source(), row, values);
  return values[static_cast<size_t>(column)];
}

StepLimits TestLimits() {
  return {.max_tokens = 160, .max_sequences = 16, .max_blocks_per_sequence = 100};
}

Step::Step(std::vector<Sequence> sequences, const StepLimits& limits) {
  first_tokens_.push_back(0);
  for (size_t s = 0; s < sequences.size(); ++s) {
    const Sequence& sequence = sequences[s];
    for (int t = 0; t < sequence.tokens; ++t) {
      positions_.push_back(sequence.first_position + t);
      sequence_rows_.push_back(static_cast<int32_t>(s));
    }
    first_tokens_.push_back(static_cast<int32_t>(positions_.size()));
    std::vector<int32_t> blocks = sequence.blocks;
    blocks.resize(static_cast<size_t>(limits.max_blocks_per_sequence), -1);
    block_table_.insert(block_table_.end(), blocks.begin(), blocks.end());
  }
}

StepTable Step::table() const {
  return {.token_ids = token_ids_,
          .positions = positions_,
          .sequence_rows = sequence_rows_,
          .first_tokens = first_tokens_,
          .block_tables = {block_table_},
          .sampled_rows = sampled_rows_};
}

void ExpectSameBits(Matrix& expected, Matrix& actual, const std::string& what) {
  ASSERT_EQ(expected.num_rows(), actual.num_rows());
  ASSERT_EQ(expected.num_columns(), actual.num_columns());
  for (int r = 0; r < expected.num_rows(); ++r) {
    for (int c = 0; c < expected.num_columns(); ++c) {
      const float a = expected.at(r, c);
      const float b = actual.at(r, c);
      if (std::isnan(a) && std::isnan(b)) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(a), std::bit_cast<uint32_t>(b))
          << what << ": row " << r << ", column " << c << ": " << a << " expected, found " << b;
    }
  }
}

}  // namespace sauva::testing
