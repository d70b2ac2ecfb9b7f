#include "quantize/gptq.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "quantize/group_rounding.h"
#include "quantize/matrix_product.h"
#include "quantize/parallel.h"

namespace sauva {
namespace {

constexpr int64_t kBlock = 128;  // columns whose errors are passed on together
constexpr int64_t kRowsAtATime = 96;

// Some rows of a matrix while their columns are quantized. Columns are held in the reverse of
// the factor's order and worked on from the last to the first.
class RowsInWork {
 public:
  RowsInWork(const GptqFactor& factor, const GptqOptions& options, QuantizedMatrix& out)
      : factor_(factor),
        options_(options),
        out_(out),
        columns_(out.columns),
        size_(out.group_size),
        by_first_(static_cast<size_t>(kBlock * kBlock)) {}

  void Quantize(int64_t first_row, int64_t count, const float* weights) {
    first_row_ = first_row;
    count_ = count;
    weights_.resize(static_cast<size_t>(count * columns_));
    for (int64_t at = 0; at < columns_; ++at) {
      const int64_t column = InputColumn(at);
      for (int64_t row = 0; row < count; ++row) {
        Weights(row)[at] =
            factor_.dead(column) ? 0 : weights[(first_row + row) * columns_ + column];
      }
    }
    for (int64_t end = columns_; end > 0;) {
      const int64_t begin = std::max<int64_t>(0, end - kBlock);
      QuantizeBlock(begin, end);
      AddProduct({.a = errors_.data(),
                  .a_stride = end - begin,
                  .rows = count,
                  .b = factor_.inverse().data() + begin,
                  .b_stride = columns_,
                  .columns = begin,
                  .inner = end - begin,
                  .factor = -1,
                  .c = weights_.data(),
                  .c_stride = columns_});
      end = begin;
    }
  }

 private:
  float* Weights(int64_t row) { return weights_.data() + row * columns_; }
  int64_t InputColumn(int64_t at) const {
    return factor_.order()[static_cast<size_t>(columns_ - 1 - at)];
  }
  // Where the column's code is stored.
  int64_t CodeColumn(int64_t at) const {
    return options_.act_order ? columns_ - 1 - at : InputColumn(at);
  }
  size_t GroupOf(int64_t row, int64_t code_column) const {
    return static_cast<size_t>((first_row_ + row) * out_.groups() + code_column / size_);
  }

  void QuantizeBlock(int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    errors_.assign(static_cast<size_t>(count_ * width), 0.0f);
    for (int64_t i = 0; i < width; ++i) {  // the block with its columns as rows
      for (int64_t j = 0; j <= i; ++j) {
        by_first_[static_cast<size_t>(i * kBlock + j)] =
            factor_.inverse()[static_cast<size_t>((begin + j) * columns_ + begin + i)];
      }
    }
    for (int64_t at = end - 1; at >= begin; --at) {
      // Groups end where a multiple of their size is left.
      if ((columns_ - 1 - at) % size_ == 0) FindGrids(at);
      const int64_t code_column = CodeColumn(at);
      const float* passed_on = by_first_.data() + (at - begin) * kBlock;
      for (int64_t row = 0; row < count_; ++row) {
        float* w = Weights(row);
        const float error = (w[at] - Round(row, at, code_column)) / passed_on[at - begin];
        errors_[static_cast<size_t>(row * width + at - begin)] = error;
        for (int64_t j = 0; j < at - begin; ++j) w[begin + j] -= error * passed_on[j];
      }
    }
  }

  // Of the group whose first column in order is `at`.
  void FindGrids(int64_t at) {
    const int64_t width = std::min(size_, at + 1);
    const GroupGrid::Kind kind =
        options_.symmetric ? GroupGrid::Kind::kSymmetric : GroupGrid::Kind::kZeroFromOne;
    for (int64_t row = 0; row < count_; ++row) {
      const std::span<const float> values(Weights(row) + at + 1 - width,
                                          static_cast<size_t>(width));
      const GroupGrid grid = GroupGrid::Of(values, options_.bits, kind);
      const size_t group = GroupOf(row, CodeColumn(at));
      out_.scales[group] = grid.scale;
      out_.zeros[group] = static_cast<uint8_t>(grid.zero);
    }
  }

  // Stores the code and returns what it stands for.
  float Round(int64_t row, int64_t at, int64_t code_column) {
    const size_t group = GroupOf(row, code_column);
    const GroupGrid grid{out_.scales[group], out_.zeros[group], (1 << options_.bits) - 1};
    const int code = grid.Code(Weights(row)[at]);
    out_.codes[static_cast<size_t>((first_row_ + row) * columns_ + code_column)] =
        static_cast<uint8_t>(code);
    return grid.Value(code);
  }

  const GptqFactor& factor_;
  const GptqOptions& options_;
  QuantizedMatrix& out_;
  const int64_t columns_;
  const int64_t size_;  // of a group
  int64_t first_row_ = 0;
  int64_t count_ = 0;
  std::vector<float> weights_;   // [count, columns]
  std::vector<float> errors_;    // [count, columns of the block]
  std::vector<float> by_first_;  // the block of the factor, transposed
};

}  // namespace

absl::StatusOr<QuantizedMatrix> QuantizeGptq(std::vector<float> weights, int64_t rows,
                                             const GptqFactor& factor, const GptqOptions& options) {
  const int64_t columns = static_cast<int64_t>(weights.size()) / rows;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (std::isfinite(weights[i])) continue;
    return absl::InvalidArgumentError(absl::StrCat("row ", static_cast<int64_t>(i) / columns,
                                                   ", column ", static_cast<int64_t>(i) % columns,
                                                   " is not finite"));
  }
  QuantizedMatrix matrix{.kind = CodeKind::kInteger,
                         .bits = options.bits,
                         .rows = rows,
                         .columns = columns,
                         .group_size = std::min(options.group_size, columns)};
  if (options.act_order && !std::ranges::is_sorted(factor.order())) {
    matrix.column_order = factor.order();
  }
  matrix.codes.resize(weights.size());
  matrix.scales.resize(static_cast<size_t>(rows * matrix.groups()));
  matrix.zeros.resize(matrix.scales.size());
  const int64_t chunks = (rows + kRowsAtATime - 1) / kRowsAtATime;
  ParallelFor(chunks, options.threads, [&](int64_t first, int64_t last) {
    RowsInWork in_work(factor, options, matrix);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t row = chunk * kRowsAtATime;
      in_work.Quantize(row, std::min(kRowsAtATime, rows - row), weights.data());
    }
  });
  return matrix;
}

}  // namespace sauva
