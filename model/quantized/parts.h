#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/quantized_matrix.h"
#include "model/quantized_outline.h"

namespace sauva {

// A tensor of a quantized matrix as the file holds it.
struct QuantizedPart {
  std::string dtype;           // as safetensors spells it
  std::vector<int64_t> shape;  // row-major
  std::span<const std::byte> bytes;

  // Elements of a tensor of 32-bit words, of bytes, of any of F32, F16 and BF16.
  uint32_t Word(int64_t i) const {
    uint32_t word;
    std::memcpy(&word, bytes.data() + i * int64_t{sizeof word}, sizeof word);
    return word;
  }
  uint8_t Byte(int64_t i) const { return static_cast<uint8_t>(bytes[static_cast<size_t>(i)]); }
  float Float(int64_t i) const;
  // Those of any float type from element `first` on.
  void Floats(int64_t first, std::span<float> floats) const;
};

// The tensors that stand for one matrix, by what follows the module's name: "qweight".
struct QuantizedParts {
  std::string module;  // as in "model.layers.0.self_attn.q_proj", for messages
  std::map<std::string, QuantizedPart, std::less<>> by_suffix;

  const QuantizedPart* Find(std::string_view suffix) const;
  // Errors: INVALID_ARGUMENT naming the tensor that is missing, or its dtype or shape and
  // what was expected. `dtypes` is separated by '|'.
  absl::StatusOr<const QuantizedPart*> Require(std::string_view suffix, std::string_view dtypes,
                                               const std::vector<int64_t>& shape) const;
  int64_t size_bytes() const;
  absl::Status Wrong(std::string_view suffix, const std::string& what) const;
};

// Value `index` of a dense stream of `bits`-bit values, least significant bit first, in
// 32-bit words that `word(i)` gives; a value may lie across two words.
template <class Words>
uint32_t StreamValue(const Words& word, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  uint64_t value = word(bit / 32) >> shift;
  if (shift + bits > 32) value |= static_cast<uint64_t>(word(bit / 32 + 1)) << (32 - shift);
  return static_cast<uint32_t>(value & ((uint64_t{1} << bits) - 1));
}

// The nibbles of so many 32-bit words, a byte each, the lowest first; those of a word `stride`
// bytes after those of the word before.
constexpr int64_t kSpreadWords = 4;
inline void SpreadNibbles(const std::byte* words, uint8_t* to, int64_t stride) {
  constexpr int64_t kBytes = 16;
  using Bytes = uint8_t __attribute__((vector_size(kBytes)));
  Bytes bytes;
  std::memcpy(&bytes, words, sizeof bytes);
  const Bytes low = bytes & 15;
  const Bytes high = bytes >> 4;
  const Bytes spread[] = {
      __builtin_shuffle(low, high, Bytes{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}),
      __builtin_shuffle(low, high,
                        Bytes{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31})};
  constexpr int64_t kPerWord = 2 * kBytes / kSpreadWords;
  for (int64_t i = 0; i < kSpreadWords; ++i) {
    std::memcpy(to + i * stride, reinterpret_cast<const uint8_t*>(spread) + i * kPerWord, kPerWord);
  }
}

// Signed bytes as codes whose zero is 128.
void ReadSigned(const QuantizedPart& weight, std::vector<uint8_t>& codes);

// A matrix of these sizes, as yet without scales and zero points. `codes` is memory for its codes,
// whose contents and size do not matter.
QuantizedMatrix MatrixOf(const QuantizedOutline& outline, std::vector<uint8_t> codes);

// Scales [groups, rows] as the matrix's [rows, groups].
// Errors: those of CheckScales.
absl::Status ReadScalesByGroup(const QuantizedParts& parts, const QuantizedPart& scales,
                               QuantizedMatrix& matrix);

// Errors: INVALID_ARGUMENT naming module, row and group of a scale that is zero, negative,
// subnormal or not finite.
absl::Status CheckScales(const QuantizedParts& parts, std::span<const float> scales,
                         int64_t groups);

// The permutation that brings columns of equal group together, from the group of each
// column; empty when they lie so already.
// Errors: INVALID_ARGUMENT for a group that is none or has another number of columns.
absl::StatusOr<std::vector<int32_t>> ColumnOrder(const QuantizedParts& parts,
                                                 const QuantizedPart& group_of_column,
                                                 int64_t group_size);

}  // namespace sauva
