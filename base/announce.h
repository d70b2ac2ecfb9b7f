#pragma once

#include <cstdio>
#include <string_view>

namespace sauva {

// How a service tells whoever started it which ports it took: one line of JSON on standard
// output, `{"event":"listening","role":"worker","address":"HOST:PORT","metrics":"HOST:PORT",
// "health":"HOST:PORT"}`.
// Nothing else is ever written there; logs go to standard error. Called once, when calls
// are accepted. Addresses are host:port and need no escaping.
inline void AnnounceListening(std::string_view role, std::string_view address,
                              std::string_view metrics, std::string_view health) {
  std::printf(
      R"({"event":"listening","role":"%.*s","address":"%.*s","metrics":"%.*s","health":"%.*s"})"
      "\n",
      static_cast<int>(role.size()), role.data(), static_cast<int>(address.size()), address.data(),
      static_cast<int>(metrics.size()), metrics.data(), static_cast<int>(health.size()),
      health.data());
  std::fflush(stdout);
}

}  // namespace sauva
