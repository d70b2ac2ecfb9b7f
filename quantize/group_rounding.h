#pragma once

#include <algorithm>
#include <span>

namespace sauva {

// An even grid of codes for the numbers of one group. Its scale is of f16, as formats
// publish it, so that codes are chosen by the scale they are read with.
struct GroupGrid {
  enum class Kind {
    kSymmetric,    // the middle code is 0
    kZeroFromAny,  // [min, max] with 0 inside, zero points from 0
    kZeroFromOne,  // the same, zero points from 1
  };
  float scale = 1;
  int zero = 0;
  int highest = 15;  // code

  // Numbers are finite. A group of zeros has scale 1.
  static GroupGrid Of(std::span<const float> values, int bits, Kind kind);

  int Code(float value) const {
    const float steps =
        std::clamp(value / scale, static_cast<float>(-zero), static_cast<float>(highest - zero));
    constexpr float kWhole = 0x1.8p23f;  // a sum with it has no fraction: ties go to even
    return static_cast<int>(steps + kWhole - kWhole) + zero;
  }
  float Value(int code) const { return static_cast<float>(code - zero) * scale; }
};

}  // namespace sauva
