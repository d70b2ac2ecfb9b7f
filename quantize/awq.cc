#include "quantize/awq.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "quantize/group_rounding.h"
#include "quantize/matrix_product.h"
#include "quantize/parallel.h"

namespace sauva {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<const Matrix>;

constexpr int kBits = 4;
constexpr int kRatios = 20;
constexpr int kClipSteps = 10;
constexpr int64_t kRowsAtATime = 64;

GroupGrid GridOf(std::span<const float> values) {
  return GroupGrid::Of(values, kBits, GroupGrid::Kind::kZeroFromAny);
}

// Row numbers to what their codes stand for.
void RoundRow(std::span<float> row, int64_t group_size) {
  for (size_t first = 0; first < row.size(); first += static_cast<size_t>(group_size)) {
    const auto group = row.subspan(first, static_cast<size_t>(group_size));
    const GroupGrid grid = GridOf(group);
    for (float& value : group) value = grid.Value(grid.Code(value));
  }
}

// Mean over all rows of |w| relative to the largest of its group.
std::vector<float> WeightMeans(std::span<const AwqMatrix* const> matrices, int64_t columns,
                               int64_t group_size) {
  std::vector<double> sums(static_cast<size_t>(columns));
  int64_t rows = 0;
  for (const AwqMatrix* matrix : matrices) {
    rows += matrix->rows;
    for (size_t at = 0; at < matrix->weights.size(); at += static_cast<size_t>(group_size)) {
      const auto group = std::span(matrix->weights).subspan(at, static_cast<size_t>(group_size));
      float largest = 0;
      for (const float value : group) largest = std::max(largest, std::fabs(value));
      const size_t first = at % static_cast<size_t>(columns);
      for (size_t i = 0; i < group.size(); ++i) {
        sums[first + i] += static_cast<double>(std::fabs(group[i]) / (largest + 1e-6f));
      }
    }
  }
  std::vector<float> means;
  for (const double sum : sums)
    means.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  return means;
}

std::vector<float> Candidate(const std::vector<float>& x_means, const std::vector<float>& w_means,
                             float ratio) {
  std::vector<float> scales(x_means.size());
  float largest = 0;
  float least = std::numeric_limits<float>::max();
  for (size_t i = 0; i < scales.size(); ++i) {
    const float by_x = std::pow(x_means[i], ratio);
    const float by_w = std::pow(w_means[i], 1 - ratio) + 1e-4f;
    scales[i] = std::max(by_x / by_w, 1e-4f);
    largest = std::max(largest, scales[i]);
    least = std::min(least, scales[i]);
  }
  const float middle = std::sqrt(largest * least);
  for (float& scale : scales) {
    scale /= middle;
    if (!std::isfinite(scale) || scale <= 0) scale = 1;
  }
  return scales;
}

// A BT.
template <class B>
Matrix Product(const Matrix& a, const B& b) {
  Matrix c = Matrix::Zero(a.rows(), b.rows());
  AddProduct({.a = a.data(),
              .a_stride = a.cols(),
              .rows = a.rows(),
              .b = b.data(),
              .b_stride = b.cols(),
              .columns = b.rows(),
              .inner = a.cols(),
              .c = c.data(),
              .c_stride = c.cols()});
  return c;
}

// The inputs as losses need them: their products where that is smaller than themselves.
struct Measure {
  Matrix gram;   // [columns, columns], or empty
  const View x;  // [kept, columns]

  explicit Measure(const AwqInputs& inputs)
      : x(inputs.kept().data(), inputs.num_kept(), inputs.columns()) {
    if (inputs.columns() <= inputs.num_kept()) gram.noalias() = x.transpose() * x;
  }
  // Sum of squares of the outputs' errors.
  double Loss(const Matrix& errors) const {
    if (gram.size() > 0) {
      return static_cast<double>(Product(errors, gram).cwiseProduct(errors).sum());
    }
    return static_cast<double>(Product(errors, x).squaredNorm());
  }
};

double LossOf(const Measure& measure, const AwqMatrix& matrix, std::span<const float> scales,
              const AwqOptions& options) {
  const auto columns = static_cast<int64_t>(scales.size());
  const int64_t chunks = (matrix.rows + kRowsAtATime - 1) / kRowsAtATime;
  std::vector<double> losses(static_cast<size_t>(chunks));
  ParallelFor(chunks, options.threads, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kRowsAtATime;
      const int64_t rows = std::min(kRowsAtATime, matrix.rows - begin);
      Matrix errors(rows, columns);
      for (int64_t row = 0; row < rows; ++row) {
        const float* w = matrix.weights.data() + (begin + row) * columns;
        const std::span<float> out(errors.data() + row * columns, static_cast<size_t>(columns));
        for (size_t i = 0; i < out.size(); ++i) out[i] = w[i] * scales[i];
        RoundRow(out, options.group_size);
        for (size_t i = 0; i < out.size(); ++i) out[i] = out[i] / scales[i] - w[i];
      }
      losses[static_cast<size_t>(chunk)] = measure.Loss(errors);
    }
  });
  double sum = 0;  // in order, whatever the threads
  for (const double loss : losses) sum += loss;
  return sum;
}

}  // namespace

void AwqInputs::Add(const Tokens& tokens) {
  for (int64_t row = 0; row < tokens.rows; ++row) {
    const float* x = tokens.data + row * tokens.stride;
    for (int64_t i = 0; i < columns_; ++i) {
      sums_[static_cast<size_t>(i)] += static_cast<double>(std::fabs(x[i]));
    }
    if (tokens_++ % tokens.keep_every == 0) kept_.insert(kept_.end(), x, x + columns_);
  }
}

std::vector<float> AwqInputs::Means() const {
  std::vector<float> means;
  for (const double sum : sums_) {
    means.push_back(static_cast<float>(sum / static_cast<double>(std::max<int64_t>(1, tokens_))));
  }
  return means;
}

void AwqInputs::Divide(std::span<const float> scales) {
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] /= static_cast<double>(scales[i]);
  for (size_t i = 0; i < kept_.size(); ++i) kept_[i] /= scales[i % scales.size()];
}

std::vector<float> SearchScales(const AwqInputs& inputs, std::span<const AwqMatrix* const> matrices,
                                const AwqOptions& options) {
  const std::vector<float> x_means = inputs.Means();
  const std::vector<float> w_means = WeightMeans(matrices, inputs.columns(), options.group_size);
  const Measure measure(inputs);
  const auto loss_of = [&](const std::vector<float>& scales) {
    double loss = 0;
    for (const AwqMatrix* matrix : matrices) loss += LossOf(measure, *matrix, scales, options);
    return loss;
  };
  std::vector<float> best(x_means.size(), 1.0f);
  double least = loss_of(best);
  for (int i = 0; i < kRatios; ++i) {
    const std::vector<float> scales =
        Candidate(x_means, w_means, static_cast<float>(i) / static_cast<float>(kRatios));
    const double loss = loss_of(scales);
    if (loss >= least) continue;
    least = loss;
    best = scales;
  }
  return best;
}

namespace {

// The share of each group's largest number that is kept, of some rows of one group.
void ClipRows(const Matrix& gram, const std::vector<std::span<float>>& rows) {
  const auto size = static_cast<size_t>(gram.rows());
  const auto step_row = [&](size_t row, int step) {
    return static_cast<int64_t>(row) * kClipSteps + step;
  };
  std::vector<float> largest(rows.size());
  Matrix errors(static_cast<int64_t>(rows.size()) * kClipSteps, gram.rows());
  for (size_t row = 0; row < rows.size(); ++row) {
    const std::span<float> w = rows[row];
    for (const float value : w) largest[row] = std::max(largest[row], std::fabs(value));
    for (int step = 0; step < kClipSteps; ++step) {
      const float most = largest[row] * (1 - static_cast<float>(step) / kRatios);
      const std::span<float> cut(errors.data() + step_row(row, step) * gram.rows(), size);
      for (size_t i = 0; i < size; ++i) cut[i] = std::clamp(w[i], -most, most);
      RoundRow(cut, gram.rows());
      for (size_t i = 0; i < size; ++i) cut[i] -= w[i];
    }
  }
  const Eigen::VectorXf losses = Product(errors, gram).cwiseProduct(errors).rowwise().sum();
  for (size_t row = 0; row < rows.size(); ++row) {
    int best = 0;
    for (int step = 1; step < kClipSteps; ++step) {
      if (losses[step_row(row, step)] < losses[step_row(row, best)]) best = step;
    }
    const float most = largest[row] * (1 - static_cast<float>(best) / kRatios);
    for (float& value : rows[row]) value = std::clamp(value, -most, most);
  }
}

}  // namespace

void ClipGroups(const AwqInputs& inputs, AwqMatrix& matrix, const AwqOptions& options) {
  const int64_t columns = inputs.columns();
  const int64_t size = options.group_size;
  const View x(inputs.kept().data(), inputs.num_kept(), columns);
  ParallelFor(columns / size, options.threads, [&](int64_t first, int64_t last) {
    for (int64_t group = first; group < last; ++group) {
      const auto part = x.middleCols(group * size, size);
      const Matrix gram = part.transpose() * part;
      for (int64_t row = 0; row < matrix.rows; row += kRowsAtATime) {
        std::vector<std::span<float>> rows;
        for (int64_t i = row; i < std::min(row + kRowsAtATime, matrix.rows); ++i) {
          rows.emplace_back(matrix.weights.data() + i * columns + group * size,
                            static_cast<size_t>(size));
        }
        ClipRows(gram, rows);
      }
    }
  });
}

QuantizedMatrix RoundAwq(const AwqMatrix& matrix, const AwqOptions& options) {
  QuantizedMatrix out{.kind = CodeKind::kInteger,
                      .bits = kBits,
                      .rows = matrix.rows,
                      .columns = static_cast<int64_t>(matrix.weights.size()) / matrix.rows,
                      .group_size = options.group_size};
  const auto size = static_cast<size_t>(options.group_size);
  for (size_t at = 0; at < matrix.weights.size(); at += size) {
    const auto group = std::span(matrix.weights).subspan(at, size);
    const GroupGrid grid = GridOf(group);
    out.scales.push_back(grid.scale);
    out.zeros.push_back(static_cast<uint8_t>(grid.zero));
    for (const float value : group) out.codes.push_back(static_cast<uint8_t>(grid.Code(value)));
  }
  return out;
}

}  // namespace sauva
