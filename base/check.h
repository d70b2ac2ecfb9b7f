#pragma once

#include <cstdio>
#include <cstdlib>
#include <source_location>

namespace sauva {

// Ends the process when `condition` is false. For broken invariants of our own,
// never for input, a peer or the environment. Always on, in release builds too.
inline void Check(bool condition, const char* claim,
                  std::source_location at = std::source_location::current()) {
  if (condition) [[likely]] return;
  std::fprintf(stderr, "%s:%u: broken invariant: %s\n", at.file_name(), at.line(), claim);
  std::abort();
}

}  // namespace sauva
