#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace sauva::testing {

// A tokenizer whose first 256 tokens are the bytes and whose others are the given pieces:
// texts and borders of tokens are then plain to read in a test. Id 256 is the beginning of
// a text and id 257 its end; both have no bytes.
class WordTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kBegin = 256;
  static constexpr int32_t kEnd = 257;
  static constexpr int32_t kFirstPiece = 258;

  explicit WordTokenizer(std::vector<std::string> pieces = {}) : pieces_(std::move(pieces)) {}

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              Special special) const override {
    std::vector<int32_t> tokens;
    if (special == Special::kAdd) tokens.push_back(kBegin);
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string PieceBytes(int32_t token) const override {
    if (token >= 0 && token < 256) return std::string(1, static_cast<char>(token));
    if (token < kFirstPiece || token >= vocab_size()) return "";
    return pieces_[static_cast<size_t>(token - kFirstPiece)];
  }
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& tokens) const override {
    std::string text;
    for (const int32_t token : tokens) text += PieceBytes(token);
    return text;
  }
  bool DropsLeadingSpace() const override { return false; }
  int vocab_size() const override { return kFirstPiece + static_cast<int>(pieces_.size()); }

 private:
  std::vector<std::string> pieces_;
};

// The tokens of a text, byte by byte.
inline std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

}  // namespace sauva::testing
