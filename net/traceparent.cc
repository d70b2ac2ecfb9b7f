#include "net/traceparent.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

// version - trace id - parent id - flags
constexpr size_t kTraceAt = 3;
constexpr size_t kTraceLength = 32;
constexpr size_t kParentAt = 36;
constexpr size_t kParentLength = 16;
constexpr size_t kFlagsAt = 53;
constexpr size_t kLength = 55;

bool IsHex(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}
bool IsZero(std::string_view text) { return text.find_first_not_of('0') == text.npos; }

}  // namespace

bool IsTraceparent(std::string_view text) {
  if (text.size() < kLength) return false;
  const std::string_view version = text.substr(0, 2);
  if (!IsHex(version) || version == "ff") return false;
  // Later versions may have more behind a dash; version 00 has not.
  if (text.size() > kLength && (version == "00" || text[kLength] != '-')) return false;
  if (text[kTraceAt - 1] != '-' || text[kParentAt - 1] != '-' || text[kFlagsAt - 1] != '-') {
    return false;
  }
  const std::string_view trace = text.substr(kTraceAt, kTraceLength);
  const std::string_view parent = text.substr(kParentAt, kParentLength);
  return IsHex(trace) && !IsZero(trace) && IsHex(parent) && !IsZero(parent) &&
         IsHex(text.substr(kFlagsAt, 2));
}

std::string ChildTraceparent(const std::string& parent, uint64_t span_id) {
  return absl::StrCat("00-", parent.substr(kTraceAt, kTraceLength), "-",
                      absl::Hex(span_id, absl::kZeroPad16), "-", parent.substr(kFlagsAt, 2));
}

}  // namespace sauva
