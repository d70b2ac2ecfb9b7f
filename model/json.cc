#include "model/json.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

constexpr int kMaxDepth = 64;

// True if brackets outside strings nest deeper than the limit. A deep tree costs many
// times the bytes of its text, so it is refused before it is built.
bool NestsTooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(const std::string& file_name, std::string_view text) {
  if (NestsTooDeep(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": JSON nests deeper than ", kMaxDepth, " levels"));
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": not valid JSON at byte ", error.byte));
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file_name, ": ", error.what()));
  }
}

std::string ShortText(const nlohmann::json& value) {
  constexpr size_t kMaxBytes = 100;
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxBytes) text = text.substr(0, kMaxBytes) + "...";
  return text;
}

}  // namespace sauva
