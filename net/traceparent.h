#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sauva {

// The W3C trace context that callers and callees of gRPC pass on as metadata, as in
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".
// Source: Trace Context Level 1, section 3.2.
inline constexpr const char* kTraceparentKey = "traceparent";

// True for what the specification calls valid: known lengths, lower-case hex, neither id
// all zeros, a version other than ff. Callers ignore what is not.
bool IsTraceparent(std::string_view text);

// The same trace with `span_id` (not 0) as the one that calls on. Requires: IsTraceparent.
std::string ChildTraceparent(const std::string& parent, uint64_t span_id);

}  // namespace sauva
