#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sauva {

// A stretch of time of one trace, as OpenTelemetry means it.
struct Span {
  enum class Kind { kInternal, kServer, kClient };
  using Value =
      std::variant<std::string, int64_t, double, std::vector<std::string>, std::vector<double>>;

  std::string trace_id;  // 16 bytes
  uint64_t span_id = 0;
  uint64_t parent_span_id = 0;  // 0: a root
  std::string name;
  Kind kind = Kind::kInternal;
  absl::Time begin;
  absl::Time end;
  std::vector<std::pair<std::string, Value>> attributes;
  absl::Status status;
};

}  // namespace sauva
