#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/quantized/layout.h"

namespace sauva {
namespace {

struct Scheme {
  bool packed = true;  // "pack-quantized", else one int8 a code
  int bits = 4;
  int64_t group_size = -1;  // -1: a row
  bool symmetric = true;
  bool static_activations = false;
};

class CompressedTensorsLayout : public QuantizedLayout {
 public:
  CompressedTensorsLayout(const Scheme& scheme, std::vector<std::string> kept) : scheme_(scheme) {
    kept_modules_ = std::move(kept);
  }

  std::string method() const override { return "compressed-tensors"; }
  const std::vector<std::string>& suffixes() const override {
    static const auto* const kSuffixes = new std::vector<std::string>{
        "weight", "weight_packed", "weight_scale", "weight_shape",    "weight_zero_point",
        "bias",   "weight_g_idx",  "input_scale",  "input_zero_point"};
    return *kSuffixes;
  }
  bool IsQuantized(const QuantizedParts& parts) const override {
    return parts.Find("weight_packed") != nullptr || parts.Find("weight_scale") != nullptr;
  }

  absl::StatusOr<QuantizedOutline> Outline(const QuantizedParts& parts,
                                           MatrixSize size) const override {
    const int64_t group = scheme_.group_size < 0 ? size.columns : scheme_.group_size;
    if (size.columns % group != 0) {
      return parts.Wrong("weight_scale", absl::StrCat("is by groups of ", group, "; ", size.columns,
                                                      " columns are no multiple"));
    }
    const int64_t groups = size.columns / group;
    if (scheme_.packed) {
      RETURN_IF_ERROR(
          parts.Require("weight_packed", "I32", {size.rows, Words(size.columns)}).status());
      RETURN_IF_ERROR(CheckShape(parts, size));
    } else {
      RETURN_IF_ERROR(parts.Require("weight", "I8", {size.rows, size.columns}).status());
    }
    RETURN_IF_ERROR(parts.Require("weight_scale", "F16|BF16|F32", {size.rows, groups}).status());
    if (!scheme_.symmetric) RETURN_IF_ERROR(CheckZeroPoints(parts, size.rows, groups));
    const bool ordered = parts.Find("weight_g_idx") != nullptr;
    if (ordered) {
      RETURN_IF_ERROR(parts.Require("weight_g_idx", "I32", {size.columns}).status());
    }
    if (scheme_.static_activations) {
      RETURN_IF_ERROR(parts.Require("input_scale", "F16|BF16|F32", {1}).status());
    }
    return QuantizedOutline{.kind = CodeKind::kInteger,
                            .bits = scheme_.bits,
                            .rows = size.rows,
                            .columns = size.columns,
                            .group_size = group,
                            .act_order = ordered,
                            .half_scales = parts.Find("weight_scale")->dtype == "F16",
                            .zero_points = !scheme_.symmetric,
                            .activation = scheme_.static_activations ? ActivationKind::kInt8Static
                                                                     : ActivationKind::kInt8Groups,
                            .stored_bytes = parts.size_bytes()};
  }

  absl::StatusOr<QuantizedMatrix> Read(const QuantizedParts& parts, MatrixSize size,
                                       std::vector<uint8_t> codes) const override {
    ASSIGN_OR_RETURN(const QuantizedOutline outline, Outline(parts, size));
    QuantizedMatrix matrix = MatrixOf(outline, std::move(codes));
    ReadCodes(parts, matrix);
    const int64_t groups = matrix.groups();
    const QuantizedPart& scales = *parts.Find("weight_scale");
    matrix.scales.resize(static_cast<size_t>(size.rows * groups));
    scales.Floats(0, matrix.scales);
    RETURN_IF_ERROR(CheckScales(parts, matrix.scales, groups));
    ReadZeros(parts, matrix);
    if (const QuantizedPart* group_of_column = parts.Find("weight_g_idx")) {
      ASSIGN_OR_RETURN(matrix.column_order,
                       ColumnOrder(parts, *group_of_column, matrix.group_size));
      SortCodes(matrix);
    }
    if (scheme_.static_activations) {
      matrix.activation_scale = parts.Find("input_scale")->Float(0);
      const std::vector<float> one = {matrix.activation_scale};
      RETURN_IF_ERROR(CheckScales(parts, one, 1));
    }
    return matrix;
  }

 private:
  int64_t Words(int64_t values) const { return (values * scheme_.bits + 31) / 32; }

  static absl::Status CheckShape(const QuantizedParts& parts, MatrixSize size) {
    ASSIGN_OR_RETURN(const QuantizedPart* shape, parts.Require("weight_shape", "I64|I32", {2}));
    const int words = shape->dtype == "I64" ? 2 : 1;
    if (shape->Word(0) != size.rows || shape->Word(words) != size.columns) {
      return parts.Wrong("weight_shape",
                         absl::StrCat("says [", shape->Word(0), ", ", shape->Word(words),
                                      "], expected [", size.rows, ", ", size.columns, "]"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckZeroPoints(const QuantizedParts& parts, int64_t rows, int64_t groups) const {
    if (!scheme_.packed) {
      return parts.Require("weight_zero_point", "I8", {rows, groups}).status();
    }
    return parts.Require("weight_zero_point", "I32", {Words(rows), groups}).status();
  }

  void ReadCodes(const QuantizedParts& parts, QuantizedMatrix& matrix) const {
    if (!scheme_.packed) return ReadSigned(*parts.Find("weight"), matrix.codes);
    matrix.codes.resize(static_cast<size_t>(matrix.rows * matrix.columns));
    const QuantizedPart& packed = *parts.Find("weight_packed");
    const int64_t words = Words(matrix.columns);
    constexpr int64_t kPerWord = 8;  // codes of 4 bits
    constexpr int64_t kSpread = kSpreadWords * kPerWord;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      const auto word = [&](int64_t i) { return packed.Word(row * words + i); };
      uint8_t* codes = matrix.codes.data() + row * matrix.columns;
      int64_t i = 0;
      for (; scheme_.bits == 4 && i + kSpread <= matrix.columns; i += kSpread) {
        SpreadNibbles(packed.bytes.data() + row * words * 4 + i / 2, codes + i, kPerWord);
      }
      for (; i < matrix.columns; ++i) {
        codes[i] = static_cast<uint8_t>(StreamValue(word, i, scheme_.bits));
      }
    }
  }

  // Codes are stored with half the range added, and so are zero points.
  void ReadZeros(const QuantizedParts& parts, QuantizedMatrix& matrix) const {
    matrix.zeros.assign(matrix.scales.size(), static_cast<uint8_t>(1 << (scheme_.bits - 1)));
    if (scheme_.symmetric) return;
    const int64_t groups = matrix.groups();
    const QuantizedPart& packed = *parts.Find("weight_zero_point");
    for (int64_t group = 0; group < groups; ++group) {
      const auto word = [&](int64_t i) { return packed.Word(i * groups + group); };
      for (int64_t row = 0; row < matrix.rows; ++row) {
        const int64_t at = row * groups + group;
        matrix.zeros[static_cast<size_t>(at)] = static_cast<uint8_t>(
            scheme_.packed ? StreamValue(word, row, scheme_.bits) : packed.Byte(at) ^ 0x80u);
      }
    }
  }

  static void SortCodes(QuantizedMatrix& matrix) {
    if (matrix.column_order.empty()) return;
    std::vector<uint8_t> sorted(static_cast<size_t>(matrix.columns));
    for (int64_t row = 0; row < matrix.rows; ++row) {
      uint8_t* codes = matrix.codes.data() + row * matrix.columns;
      for (size_t i = 0; i < sorted.size(); ++i) sorted[i] = codes[matrix.column_order[i]];
      std::copy(sorted.begin(), sorted.end(), codes);
    }
  }

  const Scheme scheme_;
};

// The one group of a config; several would be several schemes.
absl::StatusOr<ConfigReader> OnlyGroup(const ConfigReader& config) {
  ASSIGN_OR_RETURN(const auto groups, config.Object("config_groups"));
  if (!groups || groups->json().size() != 1) {
    return config.Unexpected("config_groups", "one group for all Linear modules");
  }
  ASSIGN_OR_RETURN(auto group, groups->Object(groups->json().begin().key()));
  if (!group) return config.Unexpected("config_groups", "an object in its group");
  return *std::move(group);
}

absl::Status ReadWeights(const ConfigReader& weights, Scheme& scheme) {
  ASSIGN_OR_RETURN(const std::string type, weights.String("type", "int"));
  if (type != "int") return weights.Unexpected("type", "int");
  ASSIGN_OR_RETURN(scheme.bits, weights.Integer("num_bits", {1, 16}, 8));
  const bool known =
      scheme.packed ? scheme.bits == 3 || scheme.bits == 4 || scheme.bits == 8 : scheme.bits == 8;
  if (!known) return weights.Unexpected("num_bits", scheme.packed ? "3, 4 or 8" : "8");
  ASSIGN_OR_RETURN(scheme.symmetric, weights.Boolean("symmetric", true));
  ASSIGN_OR_RETURN(const std::string strategy, weights.String("strategy", "channel"));
  if (strategy == "channel") return absl::OkStatus();
  if (strategy != "group") return weights.Unexpected("strategy", "group or channel");
  ASSIGN_OR_RETURN(scheme.group_size, weights.Integer("group_size", {1, 1 << 20}));
  return absl::OkStatus();
}

absl::Status ReadActivations(const ConfigReader& activations, Scheme& scheme) {
  ASSIGN_OR_RETURN(const int bits, activations.Integer("num_bits", {1, 16}, 8));
  ASSIGN_OR_RETURN(const std::string type, activations.String("type", "int"));
  ASSIGN_OR_RETURN(const bool symmetric, activations.Boolean("symmetric", true));
  if (bits != 8) return activations.Unexpected("num_bits", "8");
  if (type != "int") return activations.Unexpected("type", "int");
  if (!symmetric) return activations.Unexpected("symmetric", "true");
  ASSIGN_OR_RETURN(const bool dynamic, activations.Boolean("dynamic", false));
  if (dynamic) return absl::OkStatus();  // finer groups are ours to choose
  ASSIGN_OR_RETURN(const std::string strategy, activations.String("strategy", "tensor"));
  if (strategy != "tensor") return activations.Unexpected("strategy", "tensor, as it is static");
  scheme.static_activations = true;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadCompressedTensorsConfig(
    const ConfigReader& config) {
  Scheme scheme;
  ASSIGN_OR_RETURN(const ConfigReader group, OnlyGroup(config));
  ASSIGN_OR_RETURN(const std::string outer, config.String("format", "pack-quantized"));
  ASSIGN_OR_RETURN(const std::string format, group.String("format", outer));
  scheme.packed = format == "pack-quantized";
  if (!scheme.packed && format != "int-quantized" && format != "naive-quantized") {
    return config.Unexpected("format", "pack-quantized, int-quantized or naive-quantized");
  }
  ASSIGN_OR_RETURN(const auto weights, group.Object("weights"));
  if (!weights) return group.Unexpected("weights", "an object");
  RETURN_IF_ERROR(ReadWeights(*weights, scheme));
  ASSIGN_OR_RETURN(const auto activations, group.Object("input_activations"));
  if (activations) RETURN_IF_ERROR(ReadActivations(*activations, scheme));
  ASSIGN_OR_RETURN(std::vector<std::string> kept, ReadNames(config, "ignore"));
  return std::make_unique<CompressedTensorsLayout>(scheme, std::move(kept));
}

}  // namespace sauva
