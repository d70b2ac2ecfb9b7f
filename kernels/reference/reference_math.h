#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/numerics.h"

// The sums of the numerics contract in their plainest form.
namespace sauva::reference {

// 16 virtual lanes and the tree that adds them up: 8+8, 4+4, 2+2, 1+1.
struct Lanes {
  float lane[kLanes] = {};

  float Sum() const {
    float sum[kLanes];
    for (int i = 0; i < kLanes; ++i) sum[i] = lane[i];
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) sum[i] = sum[i] + sum[i + width];
    }
    return sum[0];
  }
  // The same tree with max(a, b) = a > b ? a : b.
  float Max() const {
    float best[kLanes];
    for (int i = 0; i < kLanes; ++i) best[i] = lane[i];
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i)
        best[i] = best[i] > best[i + width] ? best[i] : best[i + width];
    }
    return best[0];
  }
};

// The sum of a(i) * b(i), i < n: element i goes to lane i % 16.
template <class A, class B>
float Dot(int64_t n, A a, B b) {
  Lanes lanes;
  for (int64_t i = 0; i < n; ++i) {
    float& lane = lanes.lane[i % kLanes];
    lane = std::fma(a(i), b(i), lane);
  }
  return lanes.Sum();
}

}  // namespace sauva::reference
