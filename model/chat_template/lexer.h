#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sauva::chat {

struct Token {
  enum class Kind {
    kText,         // between tags
    kOutputBegin,  // {{
    kOutputEnd,    // }}
    kBlockBegin,   // {%
    kBlockEnd,     // %}
    kName,
    kString,    // what it stands for, escapes resolved
    kInteger,   // decimal digits
    kFloat,     // as written
    kOperator,  // + - * / // % ** ~ == != < <= > >= = ( ) [ ] { } , . : |
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  size_t offset = 0;  // byte in the template
};

// An error at a byte of a template, told as line and column.
absl::Status ErrorAt(std::string_view source, size_t offset, const std::string& what);

// Cuts a Jinja template into tokens, with the white space that chat templates are
// rendered with: trim_blocks and lstrip_blocks on, the last newline dropped.
// Errors: INVALID_ARGUMENT naming line and column.
// Source: Jinja 3.1, "Template Designer Documentation", whitespace control.
absl::StatusOr<std::vector<Token>> Tokenize(const std::string& source);

}  // namespace sauva::chat
