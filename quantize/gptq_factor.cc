#include <Eigen/Cholesky>
#include <Eigen/Dense>
#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/ceil_divide.h"
#include "quantize/gptq.h"
#include "quantize/matrix_product.h"
#include "quantize/parallel.h"

namespace sauva {
namespace {

constexpr int64_t kBlock = 256;   // columns that are factored together
constexpr int64_t kPanel = 96;    // rows of a lower triangle that one task takes
constexpr int64_t kLanesOf = 16;  // a product's inner dimension comes in these

using Block = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Tasks of unlike length, long ones and short ones in turn, so that equal shares of them take
// equally long.
void ParallelTriangle(int64_t count, int threads, const std::function<void(int64_t)>& work) {
  ParallelFor(count, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) work(i % 2 == 0 ? i / 2 : count - 1 - i / 2);
  });
}

// A symmetric matrix [n, n] of which the lower triangle is used, in blocks of columns.
class Triangle {
 public:
  Triangle(int64_t n, int threads) : n_(n), threads_(threads), lower_(static_cast<size_t>(n * n)) {}

  float* row(int64_t i) { return lower_.data() + i * n_; }

  // Becomes its lower Cholesky factor but for the diagonal blocks, of which the inverses are
  // kept. False when it is not positive definite; its content is lost then.
  bool Factor() {
    inverses_.clear();
    for (int64_t begin = 0; begin < n_; begin += kBlock) {
      const int64_t width = Width(begin);
      if (!FactorDiagonal(begin, width)) return false;
      const float* inverse = inverses_.back().data();
      const int64_t below = begin + width;
      const int64_t panels = CeilDivide(n_ - below, kPanel);
      ParallelFor(panels, threads_, [&](int64_t first, int64_t last) {
        std::vector<float> copy(static_cast<size_t>(kPanel * width));
        for (int64_t panel = first; panel < last; ++panel) {
          const int64_t top = below + panel * kPanel;
          const int64_t rows = std::min(kPanel, n_ - top);
          for (int64_t i = 0; i < rows; ++i) {
            std::copy_n(row(top + i) + begin, width, copy.data() + i * width);
            std::fill_n(row(top + i) + begin, width, 0.0f);
          }
          AddProduct({.a = copy.data(),
                      .a_stride = width,
                      .rows = rows,
                      .b = inverse,
                      .b_stride = width,
                      .columns = width,
                      .inner = width,
                      .c = row(top) + begin,
                      .c_stride = n_});
        }
      });
      ParallelTriangle(panels, threads_, [&](int64_t panel) {
        const int64_t top = below + panel * kPanel;
        const int64_t rows = std::min(kPanel, n_ - top);
        AddProduct({.a = row(top) + begin,
                    .a_stride = n_,
                    .rows = rows,
                    .b = row(below) + begin,
                    .b_stride = n_,
                    .columns = top + rows - below,
                    .inner = width,
                    .factor = -1,
                    .c = row(top) + below,
                    .c_stride = n_});
      });
    }
    return true;
  }

  // Of what Factor left, L: the transpose of L's inverse, an upper triangle by rows.
  std::vector<float> TransposedInverse() {
    std::vector<float> upper(static_cast<size_t>(n_ * n_));
    ParallelTriangle(CeilDivide(n_, kBlock), threads_, [&](int64_t block) {
      const int64_t top = block * kBlock;
      const int64_t rows = Width(top);
      const std::vector<float>& own = inverses_[static_cast<size_t>(block)];
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = i; j < rows; ++j) {
          upper[static_cast<size_t>((top + i) * n_ + top + j)] =
              own[static_cast<size_t>(j * rows + i)];
        }
      }
      std::vector<float> sums(static_cast<size_t>(rows * kBlock));
      for (int64_t begin = top + kBlock; begin < n_; begin += kBlock) {
        const int64_t width = Width(begin);
        std::ranges::fill(sums, 0.0f);
        AddProduct({.a = upper.data() + top * n_ + top,
                    .a_stride = n_,
                    .rows = rows,
                    .b = row(begin) + top,
                    .b_stride = n_,
                    .columns = width,
                    .inner = begin - top,
                    .c = sums.data(),
                    .c_stride = width});
        AddProduct({.a = sums.data(),
                    .a_stride = width,
                    .rows = rows,
                    .b = inverses_[static_cast<size_t>(begin / kBlock)].data(),
                    .b_stride = width,
                    .columns = width,
                    .inner = width,
                    .factor = -1,
                    .c = upper.data() + top * n_ + begin,
                    .c_stride = n_});
      }
    });
    return upper;
  }

 private:
  int64_t Width(int64_t begin) const { return std::min(kBlock, n_ - begin); }

  bool FactorDiagonal(int64_t begin, int64_t width) {
    Block block(width, width);
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        block(i, j) = static_cast<double>(row(begin + std::max(i, j))[begin + std::min(i, j)]);
      }
    }
    const Eigen::LLT<Block> factor(block);
    const Block lower = factor.matrixL();
    if (factor.info() != Eigen::Success || !lower.diagonal().allFinite()) return false;
    const Block inverse = lower.triangularView<Eigen::Lower>().solve(Block::Identity(width, width));
    std::vector<float>& kept = inverses_.emplace_back();
    for (int64_t i = 0; i < width * width; ++i) {
      kept.push_back(static_cast<float>(inverse.data()[i]));
    }
    return true;
  }

  const int64_t n_;
  const int threads_;
  std::vector<float> lower_;
  std::vector<std::vector<float>> inverses_;  // of the diagonal blocks, lower triangles by rows
};

// The order in which columns are rounded: those that matter most first, whose errors the
// others can still make good. Without act-order groups stay together, as the format has them.
std::vector<int32_t> RoundingOrder(const std::vector<float>& diagonal, const GptqOptions& options) {
  std::vector<int32_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), 0);
  const auto size = static_cast<size_t>(options.group_size);
  std::vector<double> group_sums((diagonal.size() + size - 1) / size);
  for (size_t i = 0; i < diagonal.size(); ++i) {
    group_sums[i / size] += static_cast<double>(diagonal[i]);
  }
  std::ranges::stable_sort(order, [&](int32_t left, int32_t right) {
    const auto a = static_cast<size_t>(left);
    const auto b = static_cast<size_t>(right);
    if (!options.act_order && a / size != b / size) {
      const double by_a = group_sums[a / size];
      const double by_b = group_sums[b / size];
      return by_a != by_b ? by_a > by_b : a < b;
    }
    return diagonal[a] > diagonal[b];
  });
  return order;
}

}  // namespace

Hessian::Hessian(int64_t columns)
    : columns_(columns), lower_(static_cast<size_t>(columns * columns)) {}

void Hessian::Add(const Inputs& inputs, int threads) {
  tokens_ += inputs.rows;
  const int64_t padded = CeilDivide(inputs.rows, kLanesOf) * kLanesOf;
  columns_first_.assign(static_cast<size_t>(columns_ * padded), 0.0f);
  ParallelFor(columns_, threads, [&](int64_t first, int64_t last) {
    constexpr int64_t kTile = 16;  // columns at a time, so that lines of both sides are used
    for (int64_t begin = first; begin < last; begin += kTile) {
      const int64_t end = std::min(begin + kTile, last);
      for (int64_t token = 0; token < inputs.rows; ++token) {
        const float* x = inputs.data + token * inputs.stride;
        for (int64_t i = begin; i < end; ++i) {
          columns_first_[static_cast<size_t>(i * padded + token)] = x[i];
        }
      }
    }
  });
  ParallelTriangle(CeilDivide(columns_, kPanel), threads, [&](int64_t panel) {
    const int64_t top = panel * kPanel;
    const int64_t rows = std::min(kPanel, columns_ - top);
    AddProduct({.a = columns_first_.data() + top * padded,
                .a_stride = padded,
                .rows = rows,
                .b = columns_first_.data(),
                .b_stride = padded,
                .columns = top + rows,
                .inner = padded,
                .c = lower_.data() + top * columns_,
                .c_stride = columns_});
  });
}

absl::StatusOr<GptqFactor> GptqFactor::Create(Hessian hessian, const GptqOptions& options,
                                              std::string& note) {
  const int64_t n = hessian.columns_;
  const auto h = [&](int64_t i, int64_t j) {
    return hessian.lower_[static_cast<size_t>(std::max(i, j) * n + std::min(i, j))];
  };
  GptqFactor factor;
  factor.dead_.resize(static_cast<size_t>(n));
  std::vector<float> diagonal(static_cast<size_t>(n));
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool dead = h(i, i) == 0;
    factor.dead_[static_cast<size_t>(i)] = dead;
    diagonal[static_cast<size_t>(i)] = dead ? 1 : h(i, i);
    mean += static_cast<double>(diagonal[static_cast<size_t>(i)]) / static_cast<double>(n);
  }
  factor.order_ = RoundingOrder(diagonal, options);
  float damping = options.damping;
  Triangle lower(n, options.threads);
  for (int attempt = 0;; ++attempt, damping *= 10) {
    // From the last column to the first: the factor of the inverse is then the inverse of
    // the factor.
    ParallelTriangle(n, options.threads, [&](int64_t row) {
      const int64_t i = factor.order_[static_cast<size_t>(n - 1 - row)];
      float* out = lower.row(row);
      for (int64_t column = 0; column < row; ++column) {
        out[column] = h(i, factor.order_[static_cast<size_t>(n - 1 - column)]);
      }
      out[row] = diagonal[static_cast<size_t>(i)] + damping * static_cast<float>(mean);
    });
    if (lower.Factor()) break;
    if (attempt == 3) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the Hessian of ", n, " inputs is not positive definite, even with damping ", damping));
    }
  }
  if (damping != options.damping) absl::StrAppend(&note, "damping raised to ", damping);
  hessian.lower_ = {};
  factor.inverse_ = lower.TransposedInverse();
  return factor;
}

}  // namespace sauva
