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
// power of two.
class Magnitudes {
 public:
  void Add(const MatMulArgs& args) {
    for (int row = 0; row < args.x.rows; ++row) {
      for (int i = 0; i < args.x.columns; ++i) {
        const float magnitude = std::fabs(args.x.row(row)[i]);
        largest_ = std::max(largest_, magnitude);
        ++counts_[std::bit_cast<uint32_t>(magnitude) >> kShift];
        ++total_;
      }
    }
  }

  // The magnitude that `percent` of all do not exceed, to one sixteenth.
  float Percentile(double percent) const {
    if (percent >= 100) return largest_;
    auto left = static_cast<int64_t>(static_cast<double>(total_) * percent / 100);
    for (uint32_t bin = 0; bin < counts_.size(); ++bin) {
      left -= counts_[bin];
      if (left < 0) return std::min(largest_, std::bit_cast<float>((bin + 1) << kShift));
    }
    return largest_;
  }

 private:
  static constexpr int kShift = 19;
  std::array<int64_t, 1 << 12> counts_{};
  int64_t total_ = 0;
  float largest_ = 0;
};

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
  std::map<std::string, Magnitudes> magnitudes;
  const bool is_static = job.options.method == Method::kInt8Static;
  if (is_static) {
    const auto observe = [&](const std::string& name, const MatMulArgs& args) {
      if (name.starts_with(job.Name(""))) magnitudes[name].Add(args);
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
      const float most = magnitudes.at(name).Percentile(job.options.percentile);
      matrix.activation_scale = most > 0x1p-90f ? most / 127.0f : 1.0f;
    }
    result.matrices.emplace(name, std::move(matrix));
  }
  return absl::OkStatus();
}

}  // namespace sauva
