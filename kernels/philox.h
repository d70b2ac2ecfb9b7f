#pragma once

#include <array>
#include <cstdint>

namespace sauva {

// Ten rounds of Philox4x32: 128 random bits, a pure function of counter and key.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.4.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

}  // namespace sauva
