#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace sauva {

// Without a branch, so that compilers take several numbers at a time.
inline bool AllFinite(std::span<const float> values) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  uint32_t some = 0;
  for (const float value : values) {
    some |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & kInfinity) == kInfinity);
  }
  return some == 0;
}

}  // namespace sauva
