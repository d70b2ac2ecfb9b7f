#include "model/tokenizers/byte_alphabet.h"

#include <optional>

#include "model/utf8.h"

namespace sauva {
namespace {

constexpr uint32_t kNumSpellings = 0x100 + 68;  // 68 bytes do not print

std::array<uint32_t, 256> CodePoints() {
  std::array<uint32_t, 256> code_points = {};
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    code_points[byte] = prints ? byte : next++;
  }
  return code_points;
}

// The byte of each code point of the alphabet, -1 for others below kNumSpellings.
const std::array<int, kNumSpellings>& BytesByCodePoint() {
  static const auto kBytes = [] {
    std::array<int, kNumSpellings> bytes;
    bytes.fill(-1);
    const auto code_points = CodePoints();
    for (int byte = 0; byte < 256; ++byte) bytes[code_points[static_cast<size_t>(byte)]] = byte;
    return bytes;
  }();
  return kBytes;
}

}  // namespace

const std::array<std::string, 256>& ByteAlphabet() {
  static const auto* const kAlphabet = [] {
    auto* alphabet = new std::array<std::string, 256>;
    const auto code_points = CodePoints();
    for (size_t byte = 0; byte < 256; ++byte) AppendUtf8(code_points[byte], (*alphabet)[byte]);
    return alphabet;
  }();
  return *kAlphabet;
}

std::string BytesOfSpelling(std::string_view token) {
  std::string bytes;
  for (size_t offset = 0; offset < token.size();) {
    const Utf8Character character = FirstCharacter(token.substr(offset));
    const bool known = character.code_point < kNumSpellings;
    const int byte = known ? BytesByCodePoint()[character.code_point] : -1;
    if (character.kind != Utf8Character::Kind::kValid || byte < 0) return std::string(token);
    bytes.push_back(static_cast<char>(byte));
    offset += character.length;
  }
  return bytes;
}

}  // namespace sauva
