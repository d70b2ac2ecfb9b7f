#pragma once

#include <cstdint>

// The 16-bit float types in software, as the hardware converts them.
namespace sauva {

float HalfToFloat(uint16_t half);
// Rounds to nearest even; too large becomes infinity.
uint16_t FloatToHalf(float value);
float BFloat16ToFloat(uint16_t value);

}  // namespace sauva
