#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sauva {

// The first character of some bytes, as The Unicode Standard 15, section 3.9 reads UTF-8.
struct Utf8Character {
  enum class Kind {
    kValid,       // `length` bytes are the character `code_point`
    kInvalid,     // `length` bytes can begin no character; one U+FFFD stands for them
    kIncomplete,  // all the bytes; more may make a character of them
  };
  Kind kind = Kind::kInvalid;
  size_t length = 0;
  uint32_t code_point = 0;
};

// `bytes` must not be empty.
Utf8Character FirstCharacter(std::string_view bytes);

// Byte offset of the first invalid or unfinished character, if there is one.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

void AppendUtf8(uint32_t code_point, std::string& out);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace sauva
