#include "model/utf8.h"

#include "base/check.h"

namespace sauva {
namespace {

using Kind = Utf8Character::Kind;

struct Range {
  uint8_t first = 0;
  uint8_t last = 0;
};

// Bytes that may follow a lead byte; later ones are always 80..BF. The narrow ranges keep
// out overlong forms, surrogates and what is beyond U+10FFFF.
Range SecondByte(uint8_t lead) {
  switch (lead) {
    case 0xe0:
      return {0xa0, 0xbf};
    case 0xed:
      return {0x80, 0x9f};
    case 0xf0:
      return {0x90, 0xbf};
    case 0xf4:
      return {0x80, 0x8f};
    default:
      return {0x80, 0xbf};
  }
}

// Bytes of a character by its lead byte, 0 if it leads none.
size_t LengthByLead(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

}  // namespace

Utf8Character FirstCharacter(std::string_view bytes) {
  Check(!bytes.empty(), "there is a first character");
  const auto lead = static_cast<uint8_t>(bytes[0]);
  const size_t length = LengthByLead(lead);
  if (length == 0) return {Kind::kInvalid, 1, 0};
  if (length == 1) return {Kind::kValid, 1, lead};
  uint32_t code_point = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Kind::kIncomplete, i, 0};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const Range range = i == 1 ? SecondByte(lead) : Range{0x80, 0xbf};
    if (byte < range.first || byte > range.last) return {Kind::kInvalid, i, 0};
    code_point = code_point << 6 | (byte & 0x3f);
  }
  return {Kind::kValid, length, code_point};
}

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    const Utf8Character character = FirstCharacter(text.substr(offset));
    if (character.kind != Kind::kValid) return offset;
    offset += character.length;
  }
  return std::nullopt;
}

void AppendUtf8(uint32_t code_point, std::string& out) {
  const auto continuation = [&](int shift) {
    out.push_back(static_cast<char>(0x80 | ((code_point >> shift) & 0x3f)));
  };
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out.push_back(static_cast<char>(0xc0 | (code_point >> 6)));
    continuation(0);
  } else if (code_point < 0x10000) {
    out.push_back(static_cast<char>(0xe0 | (code_point >> 12)));
    continuation(6);
    continuation(0);
  } else {
    out.push_back(static_cast<char>(0xf0 | (code_point >> 18)));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

}  // namespace sauva
