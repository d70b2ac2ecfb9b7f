#include "net/traceparent.h"

#include <algorithm>

#include "absl/strings/escaping.h"
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

// Requires: at most 16 hex digits.
uint64_t FromHex(std::string_view text) {
  uint64_t value = 0;
  for (const char c : text)
    value = value << 4 | static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  return value;
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view text) {
  if (text.size() < kLength) return std::nullopt;
  const std::string_view version = text.substr(0, 2);
  if (!IsHex(version) || version == "ff") return std::nullopt;
  // Later versions may have more behind a dash; version 00 has not.
  if (text.size() > kLength && (version == "00" || text[kLength] != '-')) return std::nullopt;
  if (text[kTraceAt - 1] != '-' || text[kParentAt - 1] != '-' || text[kFlagsAt - 1] != '-') {
    return std::nullopt;
  }
  const std::string_view trace = text.substr(kTraceAt, kTraceLength);
  const std::string_view parent = text.substr(kParentAt, kParentLength);
  const std::string_view flags = text.substr(kFlagsAt, 2);
  if (!IsHex(trace) || IsZero(trace) || !IsHex(parent) || IsZero(parent) || !IsHex(flags)) {
    return std::nullopt;
  }
  return TraceContext{.trace_id = absl::HexStringToBytes(std::string(trace)),
                      .span_id = FromHex(parent),
                      .flags = static_cast<uint8_t>(FromHex(flags))};
}

std::string FormatTraceparent(const TraceContext& context) {
  return absl::StrCat("00-", absl::BytesToHexString(context.trace_id), "-",
                      absl::Hex(context.span_id, absl::kZeroPad16), "-",
                      absl::Hex(context.flags, absl::kZeroPad2));
}

}  // namespace sauva
