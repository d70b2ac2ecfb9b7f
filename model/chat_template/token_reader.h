#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "model/chat_template/lexer.h"

namespace sauva::chat {

// Walks over the tokens of a template for the parsers.
class TokenReader {
 public:
  // `source` must outlive this object.
  TokenReader(const std::string& source, std::vector<Token> tokens)
      : source_(source), tokens_(std::move(tokens)) {}

  const Token& Peek() const { return tokens_[at_]; }
  const Token& Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  bool Is(Token::Kind kind) const { return Peek().kind == kind; }
  bool IsOperator(const std::string& text) const {
    return Is(Token::Kind::kOperator) && Peek().text == text;
  }
  bool IsWord(const std::string& text) const { return Is(Token::Kind::kName) && Peek().text == text; }
  // Of the token after this one: the word of a tag whose bracket comes next.
  bool NextIsWord(const std::string& text) const {
    if (at_ + 1 >= tokens_.size()) return false;
    return tokens_[at_ + 1].kind == Token::Kind::kName && tokens_[at_ + 1].text == text;
  }
  bool TakeOperator(const std::string& text) {
    const bool found = IsOperator(text);
    if (found) ++at_;
    return found;
  }
  bool TakeWord(const std::string& text) {
    const bool found = IsWord(text);
    if (found) ++at_;
    return found;
  }

  absl::Status Expect(Token::Kind kind, const std::string& what) {
    if (!Is(kind)) return Error(absl::StrCat("expected ", what, ", found ", Found()));
    Take();
    return absl::OkStatus();
  }
  absl::Status ExpectOperator(const std::string& text) {
    if (TakeOperator(text)) return absl::OkStatus();
    return Error(absl::StrCat("expected '", text, "', found ", Found()));
  }
  absl::StatusOr<std::string> TakeName(const std::string& what) {
    if (!Is(Token::Kind::kName)) return Error(absl::StrCat("expected ", what, ", found ", Found()));
    return Take().text;
  }

  absl::Status Error(const std::string& what) const {
    return ErrorAt(source_, Peek().offset, what);
  }
  absl::Status ErrorAtByte(size_t offset, const std::string& what) const {
    return ErrorAt(source_, offset, what);
  }

 private:
  std::string Found() const {
    switch (Peek().kind) {
      case Token::Kind::kEnd:
        return "the end";
      case Token::Kind::kText:
        return "text";
      case Token::Kind::kOutputEnd:
        return "'}}'";
      case Token::Kind::kBlockEnd:
        return "'%}'";
      default:
        return absl::StrCat("'", Peek().text.substr(0, 40), "'");
    }
  }

  const std::string& source_;
  const std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace sauva::chat
