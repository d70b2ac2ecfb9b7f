#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace sauva {

// A compiled Unicode pattern of a tokenizer. \s and \S mean the White_Space property, as in
// the engines for which these patterns were written.
// Thread: const methods are safe from any thread; each search has a RegexSearch of its own.
class Regex {
 public:
  enum class Syntax { kPattern, kLiteral };

  // Errors: INVALID_ARGUMENT naming the pattern, the offset and the reason.
  static absl::StatusOr<Regex> Compile(const std::string& pattern, Syntax syntax);

 private:
  friend class RegexSearch;
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit Regex(pcre2_real_code_8* code) : code_(code) {}

  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

struct RegexMatch {
  size_t begin = 0;  // bytes
  size_t end = 0;
};

// Scratch memory to search with any patterns, one after the other. Backtracking is bounded,
// so that no pattern can hold a thread for long.
class RegexSearch {
 public:
  RegexSearch();
  ~RegexSearch();

  // The first match in `text` that begins at or after byte `from`. `text` must be valid
  // UTF-8 and `from` the start of a character or the end.
  // Errors: RESOURCE_EXHAUSTED when backtracking goes beyond its bound.
  absl::StatusOr<std::optional<RegexMatch>> Next(const Regex& regex, std::string_view text,
                                                 size_t from);

 private:
  struct Free {
    void operator()(pcre2_real_match_data_8* data) const;
    void operator()(pcre2_real_match_context_8* context) const;
    void operator()(pcre2_real_jit_stack_8* stack) const;
  };
  std::unique_ptr<pcre2_real_match_data_8, Free> data_;
  std::unique_ptr<pcre2_real_match_context_8, Free> context_;
  std::unique_ptr<pcre2_real_jit_stack_8, Free> stack_;
};

}  // namespace sauva
