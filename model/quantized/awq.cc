#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/quantized/layout.h"

namespace sauva {
namespace {

constexpr int kBits = 4;
constexpr int kPerWord = 8;
// Nibble i of a word belongs to column 8c + kColumnOfNibble[i].
constexpr std::array<int, kPerWord> kColumnOfNibble = {0, 2, 4, 6, 1, 3, 5, 7};

class AwqLayout : public QuantizedLayout {
 public:
  AwqLayout(int group_size, std::vector<std::string> kept) : group_size_(group_size) {
    kept_modules_ = std::move(kept);
  }

  std::string method() const override { return "awq"; }
  const std::vector<std::string>& suffixes() const override {
    static const auto* const kSuffixes =
        new std::vector<std::string>{"qweight", "qzeros", "scales", "bias", "weight"};
    return *kSuffixes;
  }
  bool IsQuantized(const QuantizedParts& parts) const override {
    return parts.Find("qweight") != nullptr;
  }

  absl::StatusOr<QuantizedOutline> Outline(const QuantizedParts& parts,
                                           MatrixSize size) const override {
    const int64_t group = group_size_ < 0 ? size.columns : group_size_;
    if (size.rows % kPerWord != 0 || size.columns % group != 0) {
      return parts.Wrong("qweight", absl::StrCat("stands for ", size.rows, " x ", size.columns,
                                                 ", which groups of ", group,
                                                 " and words of 8 rows do not divide"));
    }
    const int64_t words = size.rows / kPerWord;
    RETURN_IF_ERROR(parts.Require("qweight", "I32", {size.columns, words}).status());
    RETURN_IF_ERROR(parts.Require("qzeros", "I32", {size.columns / group, words}).status());
    RETURN_IF_ERROR(
        parts.Require("scales", "F16|BF16|F32", {size.columns / group, size.rows}).status());
    return QuantizedOutline{.kind = CodeKind::kInteger,
                            .bits = kBits,
                            .rows = size.rows,
                            .columns = size.columns,
                            .group_size = group,
                            .half_scales = parts.Find("scales")->dtype == "F16",
                            .zero_points = true,
                            .stored_bytes = parts.size_bytes()};
  }

  absl::StatusOr<QuantizedMatrix> Read(const QuantizedParts& parts, MatrixSize size,
                                       std::vector<uint8_t> codes) const override {
    ASSIGN_OR_RETURN(const QuantizedOutline outline, Outline(parts, size));
    QuantizedMatrix matrix = MatrixOf(outline, std::move(codes));
    const int64_t groups = matrix.groups();
    matrix.codes.resize(static_cast<size_t>(size.rows * size.columns));
    matrix.zeros.resize(static_cast<size_t>(size.rows * groups));
    Unpack(*parts.Find("qweight"), size.columns, matrix.codes);
    Unpack(*parts.Find("qzeros"), groups, matrix.zeros);
    RETURN_IF_ERROR(ReadScalesByGroup(parts, *parts.Find("scales"), matrix));
    return matrix;
  }

 private:
  // Words [inputs, rows / 8] to values [rows, inputs], by tiles that lie in the nearest cache.
  static void Unpack(const QuantizedPart& packed, int64_t inputs, std::vector<uint8_t>& values) {
    constexpr int64_t kInputs = 64;  // written together
    constexpr int64_t kWords = 16;   // a cache line of them
    const int64_t words = packed.shape[1];
    for (int64_t first_word = 0; first_word < words; first_word += kWords) {
      const int64_t some_words = std::min(kWords, words - first_word);
      for (int64_t first = 0; first < inputs; first += kInputs) {
        const int64_t some_inputs = std::min(kInputs, inputs - first);
        std::array<std::array<uint32_t, kInputs>, kWords> tile;
        for (int64_t input = 0; input < some_inputs; ++input) {
          for (int64_t word = 0; word < some_words; ++word) {
            tile[static_cast<size_t>(word)][static_cast<size_t>(input)] =
                packed.Word((first + input) * words + first_word + word);
          }
        }
        for (int64_t word = 0; word < some_words; ++word) {
          const uint32_t* const bits = tile[static_cast<size_t>(word)].data();
          for (int i = 0; i < kPerWord; ++i) {
            const int64_t row =
                (first_word + word) * kPerWord + kColumnOfNibble[static_cast<size_t>(i)];
            uint8_t* const to = values.data() + row * inputs + first;
            for (int64_t input = 0; input < some_inputs; ++input) {
              to[input] = static_cast<uint8_t>(bits[input] >> (kBits * i) & 0xf);
            }
          }
        }
      }
    }
  }

  const int group_size_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadAwqConfig(const ConfigReader& config) {
  ASSIGN_OR_RETURN(const int bits, config.Integer("bits", {1, 16}, kBits));
  if (bits != kBits) return config.Unexpected("bits", "4");
  ASSIGN_OR_RETURN(const std::string version, config.String("version", "gemm"));
  const std::string_view name = version;
  if (name != "gemm" && name != "GEMM") return config.Unexpected("version", "gemm");
  ASSIGN_OR_RETURN(const int group_size, config.Integer("group_size", {-1, 1 << 20}, 128));
  if (group_size == 0) return config.Unexpected("group_size", "-1 or more than 0");
  ASSIGN_OR_RETURN(std::vector<std::string> kept, ReadNames(config, "modules_to_not_convert"));
  return std::make_unique<AwqLayout>(group_size, std::move(kept));
}

}  // namespace sauva
