#include "quantize/group_rounding.h"

#include <cmath>

#include "kernels/half.h"

namespace sauva {
namespace {

// The nearest f16 that is no zero, rounded once more below where f16 ends.
float AsPublished(float scale) {
  constexpr float kSmallest = 0x1p-24f;
  constexpr float kLargest = 65504.0f;
  return std::max(kSmallest, HalfToFloat(FloatToHalf(std::min(scale, kLargest))));
}

}  // namespace

GroupGrid GroupGrid::Of(std::span<const float> values, int bits, Kind kind) {
  float low = 0;
  float high = 0;
  for (const float value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  GroupGrid grid{.highest = (1 << bits) - 1};
  const auto steps = static_cast<float>(grid.highest);
  if (kind == Kind::kSymmetric) {
    high = std::max(-low, high);
    grid.zero = 1 << (bits - 1);
    if (high > 0) grid.scale = AsPublished(2 * high / steps);
    return grid;
  }
  const int least = kind == Kind::kZeroFromOne ? 1 : 0;
  grid.zero = least;
  if (high == low) return grid;
  grid.scale = AsPublished((high - low) / steps);
  const float zero = std::nearbyint(-low / grid.scale);
  grid.zero = static_cast<int>(std::clamp(zero, static_cast<float>(least), steps));
  return grid;
}

}  // namespace sauva
