#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/status_macros.h"
#include "kernels/half.h"
#include "quantize/layer_job.h"

namespace sauva {
namespace {

constexpr float kOutlierThreshold = 6.0f;
constexpr uint8_t kZero = 128;

// How often |x| was how large, by the upper 12 bits of the float: sixteen bins to each
// power of two. An input counts as much as the weights that read it are large.
class Magnitudes {
 public:
  explicit Magnitudes(std::vector<float> column_weights)
      : column_weights_(std::move(column_weights)) {}

  void Add(const MatMulArgs& args) {
    for (int row = 0; row < args.x.rows; ++row) {
      const float* x = args.x.row(row);
      for (int i = 0; i < args.x.columns; ++i) {
        const float magnitude = std::fabs(x[i]);
        largest_ = std::max(largest_, magnitude);
        counts_[std::bit_cast<uint32_t>(magnitude) >> kShift] +=
            static_cast<double>(column_weights_[static_cast<size_t>(i)]);
      }
    }
  }

  // The largest number of the int8 grid that leaves the least square error.
  float BestLimit() const {
    float best = largest_;
    double least = SquareError(largest_);
    const uint32_t last = std::bit_cast<uint32_t>(largest_) >> kShift;
    for (uint32_t bin = last; bin + kCandidates > last && bin > 0; --bin) {
      const float limit = std::bit_cast<float>(bin << kShift);
      const double error = SquareError(limit);
      if (error >= least) continue;
      least = error;
      best = limit;
    }
    return best;
  }

 private:
  static constexpr int kShift = 19;
  static constexpr uint32_t kCandidates = 160;  // ten powers of two

  // Of all, rounded to steps of limit / 127 and cut off at `limit`.
  double SquareError(float limit) const {
    const double step = static_cast<double>(limit) / 127;
    double sum = 0;
    for (uint32_t bin = 0; bin < counts_.size(); ++bin) {
      if (counts_[bin] == 0) continue;
      const double x = 0.5 * (static_cast<double>(std::bit_cast<float>(bin << kShift)) +
                              static_cast<double>(std::bit_cast<float>((bin + 1) << kShift)));
      double square = step * step / 12;
      if (x < step / 2) square = x * x;  // becomes 0
      if (x > limit) square = (x - limit) * (x - limit);
      sum += counts_[bin] * square;
    }
    return sum;
  }

  const std::vector<float> column_weights_;
  std::array<double, 1 << 12> counts_{};
  float largest_ = 0;
};

// Of a matrix by rows: the sum of squares of each column.
std::vector<float> ColumnSquares(const std::vector<float>& numbers, int64_t rows) {
  std::vector<float> squares(numbers.size() / static_cast<size_t>(rows));
  for (size_t i = 0; i < numbers.size(); ++i) {
    squares[i % squares.size()] += numbers[i] * numbers[i];
  }
  return squares;
}

// A scale as compressed-tensors stores it beside tensors of that type.
float InType(float scale, DType type) {
  if (type == DType::kF16) return std::max(0x1p-24f, HalfToFloat(FloatToHalf(scale)));
  if (type != DType::kBF16) return scale;
  const uint32_t bits = std::bit_cast<uint32_t>(scale);
  return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

QuantizedMatrix RoundRows(const std::vector<float>& numbers, int64_t rows, DType scale_type) {
  const auto columns = numbers.size() / static_cast<size_t>(rows);
  QuantizedMatrix matrix{.kind = CodeKind::kInteger,
                         .bits = 8,
                         .rows = rows,
                         .columns = static_cast<int64_t>(columns),
                         .group_size = static_cast<int64_t>(columns)};
  matrix.codes.reserve(numbers.size());
  for (int64_t row = 0; row < rows; ++row) {
    const auto values = std::span(numbers).subspan(static_cast<size_t>(row) * columns, columns);
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    const float exact = largest / 127.0f;
    const float scale = exact >= 0x1p-126f ? InType(exact, scale_type) : 1.0f;
    matrix.scales.push_back(scale);
    for (const float value : values) {
      const float code = std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f);
      matrix.codes.push_back(static_cast<uint8_t>(static_cast<int>(code) + kZero));
    }
  }
  matrix.zeros.assign(matrix.scales.size(), kZero);
  return matrix;
}

}  // namespace

absl::Status QuantizeLayerInt8(const LayerJob& job, LayerResult& result) {
  std::map<std::string, Magnitudes> magnitudes;  // by matrix
  const bool is_static = job.options.method == Method::kInt8Static;
  if (is_static) {
    for (const std::string& name : MatrixNames(job.model.spec, job.layer)) {
      ASSIGN_OR_RETURN(const StoredTensor tensor, job.model.checkpoint->Find(name));
      ASSIGN_OR_RETURN(const std::vector<float> numbers, ReadNumbers(*job.model.checkpoint, name));
      magnitudes.emplace(name, ColumnSquares(numbers, tensor.shape[0]));
    }
    const auto observe = [&](const std::string& name, const MatMulArgs& args) {
      const auto found = magnitudes.find(name);
      if (found != magnitudes.end()) found->second.Add(args);
    };
    RETURN_IF_ERROR(RunLayer(*job.calibration, {.layer = job.layer,
                                                .checkpoint = *job.model.checkpoint,
                                                .observer = observe,
                                                .output = LayerPass::Output::kKeep}));
  }
  for (const std::string& name : MatrixNames(job.model.spec, job.layer)) {
    ASSIGN_OR_RETURN(const StoredTensor tensor, job.model.checkpoint->Find(name));
    ASSIGN_OR_RETURN(const std::vector<float> numbers, ReadNumbers(*job.model.checkpoint, name));
    const bool exact = job.options.method == Method::kLlmInt8;
    QuantizedMatrix matrix =
        RoundRows(numbers, tensor.shape[0], exact ? DType::kF32 : tensor.dtype);
    if (exact) {
      matrix.activation = ActivationKind::kLlmInt8;
      matrix.outlier_threshold = kOutlierThreshold;
    }
    if (is_static) {
      matrix.activation = ActivationKind::kInt8Static;
      const float most = magnitudes.at(name).BestLimit();
      matrix.activation_scale = most > 0x1p-90f ? most / 127.0f : 1.0f;
    }
    result.matrices.emplace(name, std::move(matrix));
  }
  return absl::OkStatus();
}

}  // namespace sauva
