#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// The 16-bit float types in software, as the hardware converts them.
namespace sauva {

float HalfToFloat(uint16_t half);
// Rounds to nearest even; too large becomes infinity.
uint16_t FloatToHalf(float value);
float BFloat16ToFloat(uint16_t value);

// As many numbers as there are floats, from memory of any alignment.
void HalvesToFloats(const std::byte* halves, std::span<float> floats);
// False when some number is not kept as it is.
bool FloatsToHalves(std::span<const float> floats, uint16_t* halves);
void BFloat16sToFloats(const std::byte* values, std::span<float> floats);

}  // namespace sauva
