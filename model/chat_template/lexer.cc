#include "model/chat_template/lexer.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/utf8.h"

namespace sauva::chat {
namespace {

using Kind = Token::Kind;

// Longer ones first.
constexpr std::array<std::string_view, 25> kOperators = {
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
    ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ",", ".", ":", "|"};

constexpr std::string_view kSpace = " \t\n\r\v\f";

std::string_view WithoutLeadingSpace(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return text;
}
std::string_view WithoutTrailingSpace(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kSpace) + 1);  // npos + 1 is 0
}

bool IsNameCharacter(char c) { return absl::ascii_isalnum(c) || c == '_'; }

class Lexer {
 public:
  explicit Lexer(const std::string& source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) {
      const size_t tag = FindTag();
      AddText(tag);
      if (tag == std::string::npos) break;
      RETURN_IF_ERROR(TakeTag());
    }
    tokens_.push_back({Kind::kEnd, "", source_.size()});
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(at_); }
  absl::Status Error(const std::string& what) const { return ErrorAt(source_, at_, what); }

  size_t FindTag() const {
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] != '{') continue;
      if (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#') return i;
    }
    return std::string::npos;
  }

  // The text up to `tag`, less what the tags on both sides take away.
  void AddText(size_t tag) {
    const size_t begin = at_;
    std::string_view text = Rest().substr(0, tag == std::string::npos ? tag : tag - at_);
    at_ = tag == std::string::npos ? source_.size() : tag;
    if (strip_next_) {
      text = WithoutLeadingSpace(text);
    } else if (trim_newline_ && text.starts_with('\n')) {
      text.remove_prefix(1);
    }
    const bool begins_line = begin == 0 || text.size() != at_ - begin || EndedLine(begin);
    if (tag != std::string::npos) text = StripBefore(tag, text, begins_line);
    if (!text.empty()) tokens_.push_back({Kind::kText, std::string(text), begin});
  }

  bool EndedLine(size_t at) const { return at > 0 && source_[at - 1] == '\n'; }

  // What a tag takes of the text before it: all white space with a minus, else the
  // indentation of a block or comment that stands first on its line.
  std::string_view StripBefore(size_t tag, std::string_view text, bool begins_line) const {
    const char control = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (control == '-') return WithoutTrailingSpace(text);
    if (control == '+' || source_[tag + 1] == '{') return text;
    const size_t last = text.find_last_not_of(" \t");
    if (last == std::string_view::npos) return begins_line ? std::string_view() : text;
    return text[last] == '\n' ? text.substr(0, last + 1) : text;
  }

  absl::Status TakeTag() {
    const char kind = source_[at_ + 1];
    if (kind == '#') return TakeComment();
    const bool output = kind == '{';
    tokens_.push_back({output ? Kind::kOutputBegin : Kind::kBlockBegin, "", at_});
    at_ += 2;
    if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
    const std::string_view end = output ? "}}" : "%}";
    open_.clear();
    while (true) {
      SkipSpace();
      if (at_ >= source_.size()) return Error("the tag is not closed by " + std::string(end));
      if (open_.empty() && TakeTagEnd(end)) return absl::OkStatus();
      RETURN_IF_ERROR(TakeToken());
    }
  }

  bool TakeTagEnd(std::string_view end) {
    const char first = source_[at_];
    const bool controlled = first == '-' || first == '+';
    if (!Rest().substr(controlled ? 1 : 0).starts_with(end)) return false;
    const bool block = end == "%}";
    tokens_.push_back({block ? Kind::kBlockEnd : Kind::kOutputEnd, "", at_});
    at_ += end.size() + (controlled ? 1 : 0);
    strip_next_ = first == '-';
    trim_newline_ = block && first != '+';
    return true;
  }

  absl::Status TakeComment() {
    const size_t end = source_.find("#}", at_ + 2);
    if (end == std::string::npos) return Error("the comment is not closed by #}");
    strip_next_ = source_[end - 1] == '-' && end > at_ + 2;
    trim_newline_ = source_[end - 1] != '+';
    at_ = end + 2;
    return absl::OkStatus();
  }

  void SkipSpace() {
    while (at_ < source_.size() && absl::ascii_isspace(source_[at_])) ++at_;
  }

  absl::Status TakeToken() {
    const char c = source_[at_];
    if (c == '\'' || c == '"') return TakeString(c);
    if (absl::ascii_isdigit(c)) return TakeNumber();
    if (IsNameCharacter(c)) {
      size_t end = at_;
      while (end < source_.size() && IsNameCharacter(source_[end])) ++end;
      Add(Kind::kName, end - at_);
      return absl::OkStatus();
    }
    for (const std::string_view op : kOperators) {
      if (!Rest().starts_with(op)) continue;
      RETURN_IF_ERROR(NoteBracket(op[0]));
      Add(Kind::kOperator, op.size());
      return absl::OkStatus();
    }
    return Error("unexpected character '" + std::string(Rest().substr(0, 1)) + "'");
  }

  // Inside brackets "}}" ends a dictionary, not the tag.
  absl::Status NoteBracket(char c) {
    if (c == '(' || c == '[' || c == '{') open_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c != ')' && c != ']' && c != '}') return absl::OkStatus();
    if (open_.empty() || open_.back() != c)
      return Error(absl::StrCat("unexpected '", std::string(1, c), "'"));
    open_.pop_back();
    return absl::OkStatus();
  }

  absl::Status TakeNumber() {
    size_t end = at_;
    while (end < source_.size() && absl::ascii_isdigit(source_[end])) ++end;
    const bool fraction =
        end + 1 < source_.size() && source_[end] == '.' && absl::ascii_isdigit(source_[end + 1]);
    if (fraction) {
      ++end;
      while (end < source_.size() && absl::ascii_isdigit(source_[end])) ++end;
    }
    if (end < source_.size() && IsNameCharacter(source_[end])) return Error("a number ends badly");
    Add(fraction ? Kind::kFloat : Kind::kInteger, end - at_);
    return absl::OkStatus();
  }

  void Add(Kind kind, size_t length) {
    tokens_.push_back({kind, source_.substr(at_, length), at_});
    at_ += length;
  }

  absl::Status TakeString(char quote) {
    Token token{Kind::kString, "", at_};
    size_t i = at_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] != '\\') {
        token.text += source_[i++];
        continue;
      }
      RETURN_IF_ERROR(TakeEscape(i, token.text));
    }
    if (i >= source_.size()) return Error("the text is not closed by its quote");
    at_ = i + 1;
    tokens_.push_back(std::move(token));
    return absl::OkStatus();
  }

  // One escape at `i`, as in a Python string; others keep their backslash.
  absl::Status TakeEscape(size_t& i, std::string& out) const {
    static constexpr std::string_view kLetters = "ntrabfv\\'\"";
    static constexpr std::string_view kMeant = "\n\t\r\a\b\f\v\\'\"";
    const char letter = i + 1 < source_.size() ? source_[i + 1] : '\0';
    const size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (digits == 0) {
      const size_t known = letter == '\0' ? std::string_view::npos : kLetters.find(letter);
      if (letter == '\n') {
        i += 2;  // the line goes on
      } else if (known != std::string_view::npos) {
        out += kMeant[known];
        i += 2;
      } else {
        out += source_[i++];
      }
      return absl::OkStatus();
    }
    const std::string hex = source_.substr(i + 2, digits);
    const bool is_hex = hex.size() == digits && std::ranges::all_of(hex, absl::ascii_isxdigit);
    const uint32_t code = is_hex ? static_cast<uint32_t>(std::stoul(hex, nullptr, 16)) : 0;
    if (!is_hex || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
      return ErrorAt(source_, i, "a bad escape");
    }
    AppendUtf8(code, out);
    i += 2 + digits;
    return absl::OkStatus();
  }

  const std::string& source_;
  size_t at_ = 0;
  std::vector<Token> tokens_;
  std::string open_;           // brackets that must close, innermost last
  bool strip_next_ = false;    // the last tag ended with a minus
  bool trim_newline_ = false;  // the last tag was a block or comment
};

}  // namespace

absl::Status ErrorAt(std::string_view source, size_t offset, const std::string& what) {
  const std::string_view before = source.substr(0, std::min(offset, source.size()));
  const size_t line = static_cast<size_t>(std::ranges::count(before, '\n')) + 1;
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  return absl::InvalidArgumentError(absl::StrCat("chat template, line ", line, ", column ",
                                                 before.size() - line_begin + 1, ": ", what));
}

absl::StatusOr<std::vector<Token>> Tokenize(const std::string& source) {
  return Lexer(source).Run();
}

}  // namespace sauva::chat
