#include "quantize/gptq.h"

#include <Eigen/Cholesky>
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "quantize/group_rounding.h"
#include "quantize/parallel.h"

namespace sauva {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColumnMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

constexpr int64_t kBlock = 128;  // columns whose errors are passed on together
constexpr int64_t kRowsAtATime = 64;

}  // namespace

Hessian::Hessian(int64_t columns)
    : columns_(columns), lower_(static_cast<size_t>(columns * columns)) {}

void Hessian::Add(const Inputs& inputs, int threads) {
  using Strided = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
  const Strided x(inputs.data, inputs.rows, columns_, Eigen::OuterStride<>(inputs.stride));
  // The mean so far and these tokens, in proportion.
  const auto before = static_cast<double>(tokens_);
  tokens_ += inputs.rows;
  const auto all = static_cast<double>(tokens_);
  const auto keep = static_cast<float>(before / all);
  const auto take = static_cast<float>(2.0 / all);
  constexpr int64_t kPanel = 256;
  const int64_t panels = (columns_ + kPanel - 1) / kPanel;
  Eigen::Map<ColumnMajor> h(lower_.data(), columns_, columns_);
  // The first panels are the longest, so parts take every other one.
  ParallelFor(panels, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t panel = i % 2 == 0 ? i / 2 : panels - 1 - i / 2;
      const int64_t begin = panel * kPanel;
      const int64_t width = std::min(kPanel, columns_ - begin);
      auto part = h.block(begin, begin, columns_ - begin, width);
      part = keep * part;
      part.noalias() +=
          take * (x.rightCols(columns_ - begin).transpose() * x.middleCols(begin, width));
    }
  });
}

absl::StatusOr<GptqFactor> GptqFactor::Create(Hessian hessian, const GptqOptions& options,
                                              std::string& note) {
  const int64_t n = hessian.columns_;
  Eigen::Map<ColumnMajor> h(hessian.lower_.data(), n, n);
  GptqFactor factor;
  factor.dead_.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    factor.dead_[static_cast<size_t>(i)] = h(i, i) == 0;
    if (h(i, i) == 0) h(i, i) = 1;
  }
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  if (options.act_order) {
    std::ranges::stable_sort(order, std::greater<>(), [&](int32_t i) { return h(i, i); });
    if (!std::ranges::is_sorted(order)) factor.order_ = order;
  }
  const float mean = h.diagonal().mean();
  float damping = options.damping;
  ColumnMajor lower(n, n);
  for (int attempt = 0;; ++attempt, damping *= 10) {
    for (int64_t column = 0; column < n; ++column) {
      for (int64_t row = column; row < n; ++row) {
        const int64_t i = order[static_cast<size_t>(row)];
        const int64_t j = order[static_cast<size_t>(column)];
        lower(row, column) = h(std::max(i, j), std::min(i, j));
      }
      lower(column, column) += damping * mean;
    }
    const Eigen::LLT<Eigen::Ref<ColumnMajor>, Eigen::Lower> first(lower);
    if (first.info() == Eigen::Success && lower.diagonal().allFinite()) {
      // H = L LT, so its inverse is the square of L's inverse, of which the upper factor is
      // wanted: a Cholesky from the other end.
      ColumnMajor inverse = ColumnMajor::Identity(n, n);
      lower.triangularView<Eigen::Lower>().solveInPlace(inverse);
      lower.setZero();
      lower.selfadjointView<Eigen::Lower>().rankUpdate(inverse.transpose());
      inverse.resize(0, 0);
      const Eigen::LLT<Eigen::Ref<ColumnMajor>, Eigen::Lower> second(lower);
      if (second.info() == Eigen::Success && lower.diagonal().allFinite()) {
        factor.upper_.resize(static_cast<size_t>(n * n));
        // The lower factor by columns is the upper one by rows.
        std::copy_n(lower.data(), n * n, factor.upper_.data());
        if (attempt > 0) absl::StrAppend(&note, "damping raised to ", damping);
        return factor;
      }
    }
    if (attempt == 3) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the Hessian of ", n, " inputs is not positive definite, even with damping ", damping));
    }
  }
}

namespace {

// Some rows of a matrix while their columns are quantized.
class RowsInWork {
 public:
  RowsInWork(const GptqFactor& factor, const GptqOptions& options, QuantizedMatrix& out)
      : factor_(factor), options_(options), out_(out), columns_(out.columns) {}

  void Quantize(int64_t first_row, int64_t count, const float* weights) {
    const Eigen::Map<const Matrix> upper(factor_.upper().data(), columns_, columns_);
    Matrix w(count, columns_);
    for (int64_t i = 0; i < columns_; ++i) {
      const int64_t column = factor_.order().empty() ? i : factor_.order()[static_cast<size_t>(i)];
      for (int64_t row = 0; row < count; ++row) {
        w(row, i) = factor_.dead(column) ? 0 : weights[(first_row + row) * columns_ + column];
      }
    }
    Matrix errors(count, kBlock);
    for (int64_t begin = 0; begin < columns_; begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, columns_);
      for (int64_t i = begin; i < end; ++i) {
        if (i % options_.group_size == 0) FindGrids(first_row, i, w);
        for (int64_t row = 0; row < count; ++row) {
          const float error = (w(row, i) - Round(first_row + row, i, w(row, i))) / upper(i, i);
          errors(row, i - begin) = error;
          for (int64_t j = i; j < end; ++j) w(row, j) -= error * upper(i, j);
        }
      }
      const int64_t rest = columns_ - end;
      w.rightCols(rest).noalias() -=
          errors.leftCols(end - begin) * upper.block(begin, end, end - begin, rest);
    }
  }

 private:
  size_t GroupOf(int64_t row, int64_t i) const {
    return static_cast<size_t>(row * out_.groups() + i / out_.group_size);
  }

  void FindGrids(int64_t first_row, int64_t i, const Matrix& w) {
    const int64_t width = std::min(options_.group_size, columns_ - i);
    const GroupGrid::Kind kind =
        options_.symmetric ? GroupGrid::Kind::kSymmetric : GroupGrid::Kind::kZeroFromOne;
    for (int64_t row = 0; row < w.rows(); ++row) {
      const std::span<const float> values(w.data() + row * columns_ + i,
                                          static_cast<size_t>(width));
      const GroupGrid grid = GroupGrid::Of(values, options_.bits, kind);
      const size_t group = GroupOf(first_row + row, i);
      out_.scales[group] = grid.scale;
      out_.zeros[group] = static_cast<uint8_t>(grid.zero);
    }
  }

  // Stores the code and returns what it stands for.
  float Round(int64_t row, int64_t i, float value) {
    const size_t group = GroupOf(row, i);
    const GroupGrid grid{out_.scales[group], out_.zeros[group], (1 << options_.bits) - 1};
    const int code = grid.Code(value);
    out_.codes[static_cast<size_t>(row * columns_ + i)] = static_cast<uint8_t>(code);
    return grid.Value(code);
  }

  const GptqFactor& factor_;
  const GptqOptions& options_;
  QuantizedMatrix& out_;
  const int64_t columns_;
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
                         .group_size = std::min(options.group_size, columns),
                         .column_order = factor.order()};
  matrix.codes.resize(weights.size());
  matrix.scales.resize(static_cast<size_t>(rows * matrix.groups()));
  matrix.zeros.resize(matrix.scales.size());
  const int64_t chunks = (rows + kRowsAtATime - 1) / kRowsAtATime;
  ParallelFor(chunks, options.threads, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t row = chunk * kRowsAtATime;
      RowsInWork(factor, options, matrix)
          .Quantize(row, std::min(kRowsAtATime, rows - row), weights.data());
    }
  });
  return matrix;
}

}  // namespace sauva
