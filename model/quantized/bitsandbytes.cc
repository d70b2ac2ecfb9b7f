#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json.h"
#include "model/quantized/layout.h"

namespace sauva {
namespace {

constexpr int64_t kCodes = 16;
constexpr int64_t kNestedCodes = 256;
constexpr size_t kMaxStateBytes = 64 << 10;
constexpr char kNf4State[] = "weight.quant_state.bitsandbytes__nf4";
constexpr char kFp4State[] = "weight.quant_state.bitsandbytes__fp4";

// What the JSON beside a 4-bit weight says.
struct State {
  int64_t block_size = 0;
  int64_t nested_block_size = 0;  // 0: scales are stored as they are
  float nested_offset = 0;
};

class BitsandbytesLayout : public QuantizedLayout {
 public:
  BitsandbytesLayout(float threshold, std::vector<std::string> kept) : threshold_(threshold) {
    kept_modules_ = std::move(kept);
  }

  std::string method() const override { return "bitsandbytes"; }
  const std::vector<std::string>& suffixes() const override {
    static const auto* const kSuffixes = new std::vector<std::string>{
        "weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax",
        "bias",   kNf4State,       kFp4State,          "weight.nested_quant_map",
        "SCB",    "weight_format"};
    return *kSuffixes;
  }
  bool IsQuantized(const QuantizedParts& parts) const override {
    return parts.Find("SCB") != nullptr || parts.Find("weight.absmax") != nullptr;
  }

  absl::StatusOr<QuantizedOutline> Outline(const QuantizedParts& parts,
                                           MatrixSize size) const override {
    if (parts.Find("SCB") != nullptr) return OutlineInt8(parts, size);
    ASSIGN_OR_RETURN(const State state, ReadState(parts, size));
    return QuantizedOutline{.kind = CodeKind::kNf4,
                            .bits = 4,
                            .rows = size.rows,
                            .columns = size.columns,
                            .group_size = GroupSize(state, size),
                            .stored_bytes = parts.size_bytes()};
  }

  absl::StatusOr<QuantizedMatrix> Read(const QuantizedParts& parts, MatrixSize size,
                                       std::vector<uint8_t> codes) const override {
    if (parts.Find("SCB") != nullptr) return ReadInt8(parts, size, std::move(codes));
    return ReadNf4(parts, size, std::move(codes));
  }

 private:
  absl::StatusOr<QuantizedOutline> OutlineInt8(const QuantizedParts& parts, MatrixSize size) const {
    RETURN_IF_ERROR(parts.Require("weight", "I8", {size.rows, size.columns}).status());
    RETURN_IF_ERROR(parts.Require("SCB", "F32", {size.rows}).status());
    // 0 is "row"; the others are layouts of single GPU generations.
    const QuantizedPart* format = parts.Find("weight_format");
    if (format != nullptr && (format->bytes.size() != 1 || format->Byte(0) != 0)) {
      return parts.Wrong("weight_format", "is not 0, the row-major layout");
    }
    return QuantizedOutline{.kind = CodeKind::kInteger,
                            .bits = 8,
                            .rows = size.rows,
                            .columns = size.columns,
                            .group_size = size.columns,
                            .activation = ActivationKind::kLlmInt8,
                            .stored_bytes = parts.size_bytes()};
  }

  absl::StatusOr<QuantizedMatrix> ReadInt8(const QuantizedParts& parts, MatrixSize size,
                                           std::vector<uint8_t> codes) const {
    ASSIGN_OR_RETURN(const QuantizedOutline outline, OutlineInt8(parts, size));
    QuantizedMatrix matrix = MatrixOf(outline, std::move(codes));
    matrix.outlier_threshold = threshold_;
    constexpr uint8_t kZero = 128;
    ReadSigned(*parts.Find("weight"), matrix.codes);
    const QuantizedPart& largest = *parts.Find("SCB");
    for (int64_t row = 0; row < size.rows; ++row) {
      const auto first = matrix.codes.begin() + row * size.columns;
      // A channel that is off has no largest number; any scale gives its codes their zeros.
      const bool off = largest.Float(row) == 0 &&
                       std::all_of(first, first + size.columns, [](auto c) { return c == kZero; });
      matrix.scales.push_back(off ? 1.0f : largest.Float(row) / 127.0f);
    }
    matrix.zeros.assign(matrix.scales.size(), kZero);
    RETURN_IF_ERROR(CheckScales(parts, matrix.scales, 1));
    return matrix;
  }

  // Blocks run over the row-major weight and may begin inside a row: then groups are the
  // largest that lie in one block and one row.
  static int64_t GroupSize(const State& state, MatrixSize size) {
    if (size.columns % state.block_size == 0) return state.block_size;
    return std::gcd(state.block_size, size.columns);
  }

  static int64_t NumBlocks(const State& state, MatrixSize size) {
    return (size.rows * size.columns + state.block_size - 1) / state.block_size;
  }

  static absl::StatusOr<State> ParseState(const QuantizedParts& parts, MatrixSize size) {
    const QuantizedPart* part = parts.Find(kNf4State);
    if (part == nullptr) {
      return parts.Wrong(kNf4State, parts.Find(kFp4State) == nullptr
                                        ? "is missing"
                                        : "is missing: the weight is fp4, only nf4 is known");
    }
    if (part->dtype != "U8" || part->bytes.size() > kMaxStateBytes) {
      return parts.Wrong(kNf4State,
                         absl::StrCat("has dtype ", part->dtype, " and ", part->bytes.size(),
                                      " bytes, expected U8 and ", "at most ", kMaxStateBytes));
    }
    const std::string name = parts.module + "." + kNf4State;
    ASSIGN_OR_RETURN(
        nlohmann::json json,
        ParseJson(name, {reinterpret_cast<const char*>(part->bytes.data()), part->bytes.size()}));
    if (!json.is_object()) return parts.Wrong(kNf4State, "is no JSON object");
    if (json.value("shape", nlohmann::json()) != nlohmann::json{size.rows, size.columns}) {
      return parts.Wrong(kNf4State,
                         absl::StrCat("has shape ", json.value("shape", nlohmann::json()).dump(),
                                      ", expected [", size.rows, ", ", size.columns, "]"));
    }
    const ConfigReader reader(std::move(json), name + ": ");
    State state;
    ASSIGN_OR_RETURN(state.block_size, reader.Integer("blocksize", {2, 1 << 20}));
    if ((state.block_size & (state.block_size - 1)) != 0) {
      return reader.Unexpected("blocksize", "a power of two");
    }
    const QuantizedPart* absmax = parts.Find("weight.absmax");
    if (absmax == nullptr || absmax->dtype != "U8") return state;
    ASSIGN_OR_RETURN(state.nested_block_size, reader.Integer("nested_blocksize", {1, 1 << 20}));
    ASSIGN_OR_RETURN(state.nested_offset, reader.Number("nested_offset", {-1e6, 1e6}));
    return state;
  }

  static absl::StatusOr<State> ReadState(const QuantizedParts& parts, MatrixSize size) {
    ASSIGN_OR_RETURN(const State state, ParseState(parts, size));
    // Stored in any element type: FSDP wants them equal over the whole model.
    const QuantizedPart* weight = parts.Find("weight");
    const int64_t bytes = (size.rows * size.columns + 1) / 2;
    if (weight == nullptr || static_cast<int64_t>(weight->bytes.size()) != bytes) {
      return parts.Wrong(
          "weight", absl::StrCat("has ", weight ? weight->bytes.size() : 0, " bytes, expected ",
                                 bytes, " for ", size.rows, " x ", size.columns, " codes"));
    }
    const int64_t blocks = NumBlocks(state, size);
    const bool nested = state.nested_block_size > 0;
    RETURN_IF_ERROR(parts.Require("weight.absmax", nested ? "U8" : "F32", {blocks}).status());
    ASSIGN_OR_RETURN(const QuantizedPart* map, parts.Require("weight.quant_map", "F32", {kCodes}));
    for (int64_t i = 0; i < kCodes; ++i) {
      if (map->Float(i) != kNf4Values[i]) {
        return parts.Wrong("weight.quant_map",
                           absl::StrCat("has ", map->Float(i), " for code ", i,
                                        ", which is not NF4's ", kNf4Values[i]));
      }
    }
    if (!nested) return state;
    const int64_t nested_blocks = (blocks + state.nested_block_size - 1) / state.nested_block_size;
    RETURN_IF_ERROR(parts.Require("weight.nested_absmax", "F32", {nested_blocks}).status());
    RETURN_IF_ERROR(parts.Require("weight.nested_quant_map", "F32", {kNestedCodes}).status());
    return state;
  }

  // The scale of each block. A block of zeros has scale 0, or by nesting any near it.
  static absl::StatusOr<std::vector<float>> BlockScales(const QuantizedParts& parts,
                                                        const State& state, int64_t blocks) {
    const QuantizedPart& absmax = *parts.Find("weight.absmax");
    const QuantizedPart* nested = parts.Find("weight.nested_absmax");
    const QuantizedPart* map = parts.Find("weight.nested_quant_map");
    std::vector<float> scales(static_cast<size_t>(blocks));
    for (int64_t i = 0; i < blocks; ++i) {
      float& scale = scales[static_cast<size_t>(i)];
      if (state.nested_block_size == 0) {
        scale = absmax.Float(i);
      } else {
        const float value = map->Float(absmax.Byte(i)) * nested->Float(i / state.nested_block_size);
        scale = value + state.nested_offset;
      }
      if (!std::isfinite(scale)) {
        return parts.Wrong("weight.absmax",
                           absl::StrCat("gives block ", i, " a scale that is not finite"));
      }
      // Flushed as the reference's arithmetic would: no weight of such a block is normal.
      if (std::fpclassify(scale) == FP_SUBNORMAL) scale = 0;
    }
    return scales;
  }

  // Two codes to a byte, the first in the higher half; the last may be alone.
  static void ReadPairs(const QuantizedPart& weight, std::vector<uint8_t>& codes) {
    const size_t pairs = codes.size() / 2;
    uint8_t* to = codes.data();
    for (const std::byte pair : weight.bytes.first(pairs)) {
      *to++ = static_cast<uint8_t>(pair >> 4);
      *to++ = static_cast<uint8_t>(pair & std::byte{15});
    }
    if (codes.size() % 2 != 0) codes.back() = static_cast<uint8_t>(weight.bytes[pairs]) >> 4;
  }

  static absl::StatusOr<QuantizedMatrix> ReadNf4(const QuantizedParts& parts, MatrixSize size,
                                                 std::vector<uint8_t> codes) {
    ASSIGN_OR_RETURN(const State state, ReadState(parts, size));
    QuantizedMatrix matrix{.kind = CodeKind::kNf4,
                           .bits = 4,
                           .rows = size.rows,
                           .columns = size.columns,
                           .group_size = GroupSize(state, size),
                           .codes = std::move(codes)};
    ASSIGN_OR_RETURN(const std::vector<float> scales,
                     BlockScales(parts, state, NumBlocks(state, size)));
    const int64_t groups = matrix.groups();
    for (int64_t row = 0; row < size.rows; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t at = row * size.columns + group * matrix.group_size;
        matrix.scales.push_back(scales[static_cast<size_t>(at / state.block_size)]);
      }
    }
    matrix.codes.resize(static_cast<size_t>(size.rows * size.columns));
    ReadPairs(*parts.Find("weight"), matrix.codes);
    return matrix;
  }

  const float threshold_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadBitsandbytesConfig(
    const ConfigReader& config) {
  ASSIGN_OR_RETURN(const float threshold, config.Number("llm_int8_threshold", {0, 1e6}, 6.0f));
  ASSIGN_OR_RETURN(std::vector<std::string> kept, ReadNames(config, "llm_int8_skip_modules"));
  return std::make_unique<BitsandbytesLayout>(threshold, std::move(kept));
}

}  // namespace sauva
