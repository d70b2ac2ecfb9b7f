#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/quantized/layout.h"

namespace sauva {
namespace {

// A word's values are whole after this many of them, for any width of code.
constexpr int64_t kRun = 32;

constexpr int64_t kWordBytes = 4;
constexpr int64_t kPerWord = 8;  // codes of 4 bits

// Rows that are read together: four cache lines of words.
constexpr int64_t kRows = 64;

// Rows [first, end).
struct RowRange {
  int64_t first = 0, end = 0;
};

struct Scheme {
  int bits = 4;
  int64_t group_size = -1;  // -1: a whole row
  bool symmetric = false;
  bool stored_minus_one = true;
};

class GptqLayout : public QuantizedLayout {
 public:
  GptqLayout(const Scheme& scheme, std::vector<std::string> kept) : scheme_(scheme) {
    kept_modules_ = std::move(kept);
  }

  std::string method() const override { return "gptq"; }
  const std::vector<std::string>& suffixes() const override {
    static const auto* const kSuffixes =
        new std::vector<std::string>{"qweight", "qzeros", "scales", "g_idx", "bias", "weight"};
    return *kSuffixes;
  }
  bool IsQuantized(const QuantizedParts& parts) const override {
    return parts.Find("qweight") != nullptr;
  }

  absl::StatusOr<QuantizedOutline> Outline(const QuantizedParts& parts,
                                           MatrixSize size) const override {
    if (size.rows % kRun != 0 || size.columns % kRun != 0) {
      return parts.Wrong("qweight", absl::StrCat("stands for ", size.rows, " x ", size.columns,
                                                 "; both must be multiples of ", kRun));
    }
    const int64_t group = GroupSize(size);
    const int64_t groups = (size.columns + group - 1) / group;
    const int64_t words = scheme_.bits * size.columns / kRun;
    RETURN_IF_ERROR(parts.Require("qweight", "I32", {words, size.rows}).status());
    RETURN_IF_ERROR(
        parts.Require("qzeros", "I32", {groups, scheme_.bits * size.rows / kRun}).status());
    RETURN_IF_ERROR(parts.Require("scales", "F16|BF16|F32", {groups, size.rows}).status());
    const bool ordered = parts.Find("g_idx") != nullptr;
    if (ordered) RETURN_IF_ERROR(parts.Require("g_idx", "I32", {size.columns}).status());
    return QuantizedOutline{.kind = CodeKind::kInteger,
                            .bits = scheme_.bits,
                            .rows = size.rows,
                            .columns = size.columns,
                            .group_size = group,
                            .act_order = ordered && groups > 1,
                            .half_scales = parts.Find("scales")->dtype == "F16",
                            .zero_points = !scheme_.symmetric,
                            .stored_bytes = parts.size_bytes()};
  }

  absl::StatusOr<QuantizedMatrix> Read(const QuantizedParts& parts, MatrixSize size,
                                       std::vector<uint8_t> codes) const override {
    ASSIGN_OR_RETURN(const QuantizedOutline outline, Outline(parts, size));
    QuantizedMatrix matrix = MatrixOf(outline, std::move(codes));
    if (const QuantizedPart* group_of_column = parts.Find("g_idx")) {
      ASSIGN_OR_RETURN(matrix.column_order,
                       ColumnOrder(parts, *group_of_column, matrix.group_size));
    }
    ReadCodes(*parts.Find("qweight"), matrix);
    ReadZeros(*parts.Find("qzeros"), matrix);
    RETURN_IF_ERROR(ReadScalesByGroup(parts, *parts.Find("scales"), matrix));
    return matrix;
  }

 private:
  int64_t GroupSize(MatrixSize size) const {
    const bool whole = scheme_.group_size < 0 || scheme_.group_size > size.columns;
    return whole ? size.columns : scheme_.group_size;
  }

  // Words run down the input columns, one stream for each row. A few rows at a time, which fit in a
  // cache together: their codes in the order of the inputs, then in the matrix's.
  void ReadCodes(const QuantizedPart& packed, QuantizedMatrix& matrix) const {
    const std::vector<int32_t>& order = matrix.column_order;
    matrix.codes.resize(static_cast<size_t>(matrix.rows * matrix.columns));
    std::vector<uint8_t> inputs(order.empty() ? 0 : static_cast<size_t>(kRows * matrix.columns));
    for (int64_t row = 0; row < matrix.rows; row += kRows) {
      uint8_t* codes = matrix.codes.data() + row * matrix.columns;
      uint8_t* to = order.empty() ? codes : inputs.data();
      const RowRange rows{row, std::min(row + kRows, matrix.rows)};
      scheme_.bits == 4 ? ReadNibbles(packed, matrix, rows, to)
                        : ReadStreams(packed, matrix, rows, to);
      if (order.empty()) continue;
      for (int64_t r = rows.first; r < rows.end; ++r, codes += matrix.columns) {
        const uint8_t* from = inputs.data() + (r - rows.first) * matrix.columns;
        for (int64_t i = 0; i < matrix.columns; ++i) codes[i] = from[order[static_cast<size_t>(i)]];
      }
    }
  }

  // Codes of any width.
  void ReadStreams(const QuantizedPart& packed, const QuantizedMatrix& matrix, RowRange rows,
                   uint8_t* codes) const {
    for (int64_t first = 0; first < matrix.columns; first += kRun) {
      const int64_t first_word = first / kRun * scheme_.bits;
      for (int64_t row = rows.first; row < rows.end; ++row) {
        std::array<uint32_t, 8> words{};
        for (int i = 0; i < scheme_.bits; ++i) {
          words[static_cast<size_t>(i)] = packed.Word((first_word + i) * matrix.rows + row);
        }
        const auto word = [&](int64_t i) { return words[static_cast<size_t>(i)]; };
        uint8_t* to = codes + (row - rows.first) * matrix.columns + first;
        for (int64_t i = 0; i < kRun; ++i) {
          to[i] = static_cast<uint8_t>(StreamValue(word, i, scheme_.bits));
        }
      }
    }
  }

  // The most common codes, by tiles of kRun columns that lie in the nearest cache: a row's codes
  // are together, its words far apart.
  static void ReadNibbles(const QuantizedPart& packed, const QuantizedMatrix& matrix, RowRange rows,
                          uint8_t* codes) {
    constexpr int64_t kAhead = 8 * kRun;
    const auto words = [&](int64_t column) {
      return packed.bytes.data() + (column / kPerWord * matrix.rows + rows.first) * kWordBytes;
    };
    for (int64_t first = 0; first < matrix.columns; first += kRun) {
      std::array<std::array<uint8_t, kRun>, kRows> tile;
      for (int64_t i = 0; i < kRun; i += kPerWord) {
        const std::byte* const ahead = words(std::min(first + i + kAhead, matrix.columns - 1));
        for (int64_t b = 0; b < kRows * kWordBytes; b += 64) __builtin_prefetch(ahead + b);
        const std::byte* const from = words(first + i);
        for (int64_t r = 0; r < rows.end - rows.first; r += kSpreadWords) {
          SpreadNibbles(from + r * kWordBytes,
                        &tile[static_cast<size_t>(r)][static_cast<size_t>(i)], kRun);
        }
      }
      for (int64_t r = 0; r < rows.end - rows.first; ++r) {
        std::memcpy(codes + r * matrix.columns + first, &tile[static_cast<size_t>(r)], kRun);
      }
    }
  }

  // Version 1 subtracted one from each zero point before packing. Widths that fill words
  // exactly are given it back by one addition to the word, carry and all, since that is what
  // the writers undid; 3-bit zeros one by one.
  // Source: GPTQModel, utils/model.py, convert_gptq_v1_to_v2_format_module.
  void ReadZeros(const QuantizedPart& packed, QuantizedMatrix& matrix) const {
    const int bits = scheme_.bits;
    const int64_t groups = matrix.groups();
    const int64_t words = packed.shape[1];
    const bool by_word = scheme_.stored_minus_one && bits != 3;
    const uint32_t ones = !by_word ? 0 : bits == 4 ? 0x11111111u : 0x01010101u;
    const uint32_t one = scheme_.stored_minus_one && !by_word ? 1 : 0;
    const uint32_t mask = (1u << bits) - 1;
    matrix.zeros.resize(static_cast<size_t>(matrix.rows * groups));
    for (int64_t first = 0; first < matrix.rows; first += kRun) {
      std::array<uint32_t, 8> run{};  // of `bits` words
      for (int64_t group = 0; group < groups; ++group) {
        for (int i = 0; i < bits; ++i) {
          run[static_cast<size_t>(i)] = packed.Word(group * words + first / kRun * bits + i) + ones;
        }
        const auto word = [&](int64_t i) { return run[static_cast<size_t>(i)]; };
        for (int64_t r = 0; r < kRun; ++r) {
          matrix.zeros[static_cast<size_t>((first + r) * groups + group)] =
              static_cast<uint8_t>((StreamValue(word, r, bits) + one) & mask);
        }
      }
    }
  }

  const Scheme scheme_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadGptqConfig(const ConfigReader& config) {
  Scheme scheme;
  ASSIGN_OR_RETURN(scheme.bits, config.Integer("bits", {1, 16}, 4));
  if (scheme.bits != 3 && scheme.bits != 4 && scheme.bits != 8) {
    return config.Unexpected("bits", "3, 4 or 8");
  }
  ASSIGN_OR_RETURN(scheme.group_size, config.Integer("group_size", {-1, 1 << 20}, -1));
  if (scheme.group_size == 0) return config.Unexpected("group_size", "-1 or more than 0");
  ASSIGN_OR_RETURN(scheme.symmetric, config.Boolean("sym", false));
  const std::string key = config.Has("checkpoint_format") ? "checkpoint_format" : "format";
  ASSIGN_OR_RETURN(const std::string format, config.String(key, "gptq"));
  if (format != "gptq" && format != "gptq_v2") return config.Unexpected(key, "gptq or gptq_v2");
  scheme.stored_minus_one = format == "gptq";
  ASSIGN_OR_RETURN(std::vector<std::string> kept, ReadNames(config, "modules_to_not_convert"));
  return std::make_unique<GptqLayout>(scheme, std::move(kept));
}

}  // namespace sauva
