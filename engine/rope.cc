#include "engine/rope.h"

#include <cmath>
#include <numbers>

namespace sauva {
namespace {

float Llama3Scaled(float frequency, const RopeLlama3Scaling& scaling) {
  const auto context = static_cast<float>(scaling.original_max_position);
  const float low_wavelength = context / scaling.low_freq_factor;
  const float high_wavelength = context / scaling.high_freq_factor;
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  if (wavelength > low_wavelength) return frequency / scaling.factor;
  if (wavelength < high_wavelength) return frequency;
  const float smooth = (context / wavelength - scaling.low_freq_factor) /
                       (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

std::vector<float> InverseFrequencies(const RopeSpec& rope) {
  std::vector<float> frequencies;
  for (int i = 0; i < rope.rotary_dims; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rope.rotary_dims);
    // Through double, so that the f32 power is rounded once on every machine.
    const auto power = static_cast<float>(
        std::pow(static_cast<double>(rope.theta), static_cast<double>(exponent)));
    float frequency = 1.0f / power;
    if (rope.llama3) {
      frequency = Llama3Scaled(frequency, *rope.llama3);
    } else {
      frequency /= rope.linear_factor;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace sauva
