#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sauva {

// The W3C trace context that callers and callees of gRPC pass on as metadata, as in
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".
// Source: Trace Context Level 1, section 3.2.
inline constexpr const char* kTraceparentKey = "traceparent";

struct TraceContext {
  std::string trace_id;  // 16 bytes
  uint64_t span_id = 0;  // of the one that calls; not 0
  uint8_t flags = 0;
  // The caller records its spans and wishes that others do.
  bool sampled() const { return (flags & 1) != 0; }
  bool operator==(const TraceContext&) const = default;
};

// Nothing for what the specification calls invalid: other lengths, anything but lower-case
// hex, an id of zeros, version ff. Callers ignore what is not valid.
std::optional<TraceContext> ParseTraceparent(std::string_view text);

std::string FormatTraceparent(const TraceContext& context);

}  // namespace sauva
