#include "model/incremental_decoder.h"

#include <utility>

#include "model/utf8.h"

namespace sauva {

std::string IncrementalDecoder::Push(int32_t token) {
  std::string piece = tokenizer_.PieceBytes(token);
  // Special tokens add nothing, so the text has not begun yet.
  if (drops_space_ && !piece.empty()) {
    drops_space_ = false;
    if (piece.front() == ' ') piece.erase(0, 1);
  }
  const std::string bytes = std::exchange(held_, "") + piece;
  std::string text;
  size_t offset = 0;
  while (offset < bytes.size()) {
    const std::string_view rest = std::string_view(bytes).substr(offset);
    const Utf8Character character = FirstCharacter(rest);
    if (character.kind == Utf8Character::Kind::kIncomplete) {
      held_ = rest;
      break;
    }
    const bool valid = character.kind == Utf8Character::Kind::kValid;
    text += valid ? rest.substr(0, character.length) : kReplacementCharacter;
    offset += character.length;
  }
  return text;
}

std::string IncrementalDecoder::Flush() {
  if (held_.empty()) return "";
  held_.clear();
  return std::string(kReplacementCharacter);
}

}  // namespace sauva
