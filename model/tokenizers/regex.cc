#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizers/regex.h"

#include <pcre2.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {
namespace {

// Steps of backtracking in one match. A run of spaces as long as a large prompt needs one
// step per character; a pattern that needs more per character does not end in useful time.
constexpr uint32_t kMaxSteps = 20'000'000;
constexpr uint32_t kMaxMemoryKiB = 256 * 1024;
constexpr size_t kMaxPatternBytes = 64 << 10;

// PCRE2's own \s counts U+180E as a space, which Unicode no longer does.
std::string WithUnicodeSpaces(const std::string& pattern) {
  std::string result;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      result += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      result += "\\p{White_Space}";
    } else if (escaped == 'S') {
      result += "\\P{White_Space}";
    } else {
      result += {'\\', escaped};
    }
  }
  return result;
}

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

void Regex::Free::operator()(pcre2_code* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::Compile(const std::string& pattern, Syntax syntax) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern has ", pattern.size(), " bytes, limit ", kMaxPatternBytes));
  }
  // No \C, which could end a match inside a character.
  const uint32_t options =
      PCRE2_UTF |
      (syntax == Syntax::kLiteral ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
  const std::string source = syntax == Syntax::kLiteral ? pattern : WithUnicodeSpaces(pattern);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                   options, &error, &offset, nullptr);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern '", source, "' at offset ", offset, ": ", ErrorText(error)));
  }
  // Without just-in-time compilation the same matches are found, more slowly.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(code);
}

RegexSearch::RegexSearch()
    : data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(32 << 10, 4 << 20, nullptr)) {
  Check(data_ != nullptr && context_ != nullptr, "there is memory to search with");
  pcre2_set_match_limit(context_.get(), kMaxSteps);
  pcre2_set_heap_limit(context_.get(), kMaxMemoryKiB);
  // Without just-in-time compilation there is no such stack.
  if (stack_ != nullptr) pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
}

RegexSearch::~RegexSearch() = default;

void RegexSearch::Free::operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
void RegexSearch::Free::operator()(pcre2_match_context* context) const {
  pcre2_match_context_free(context);
}
void RegexSearch::Free::operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }

absl::StatusOr<std::optional<RegexMatch>> RegexSearch::Next(const Regex& regex,
                                                            std::string_view text, size_t from) {
  // The caller has checked the text once; checking it again at each match would make a
  // search through n characters take n squared.
  const int result =
      pcre2_match(regex.code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  if (result == PCRE2_ERROR_NOMATCH) return std::optional<RegexMatch>();
  if (result < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the tokenizer's pattern failed at byte ", from, ": ", ErrorText(result)));
  }
  const size_t* bounds = pcre2_get_ovector_pointer(data_.get());
  // \K in a lookahead may set a start behind the end.
  const size_t end = bounds[1];
  return std::optional<RegexMatch>(RegexMatch{bounds[0] < end ? bounds[0] : end, end});
}

}  // namespace sauva
