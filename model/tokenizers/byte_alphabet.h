#pragma once

#include <array>
#include <string>
#include <string_view>

namespace sauva {

// Byte-level vocabularies spell each byte as one printable character, so that a token is a
// readable string: bytes that print stand for themselves, the others for U+0100 and on.
// Source: openai/gpt-2, src/encoder.py, bytes_to_unicode.
const std::array<std::string, 256>& ByteAlphabet();

// The bytes that a token of such a vocabulary spells. A token with a character outside the
// alphabet stands for its own UTF-8 bytes, as in the tokenizers library.
std::string BytesOfSpelling(std::string_view token);

}  // namespace sauva
