#include <algorithm>
#include <cmath>

#include "tests/cuda/emulator/simt_target.h"

// The matrix instructions, over the registers of all lanes of a warp.
namespace sauva::cuda {
namespace {

struct Fragments {
  uint32_t a[4];
  uint32_t b[2];
};

emulator::LaneValues<Fragments> ExchangeFragments(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Fragments mine;
  std::copy_n(a, 4, mine.a);
  std::copy_n(b, 2, mine.b);
  return emulator::ExchangeInWarp(mine);
}

// Units cut what they add up off, they do not round. Source: Fasi, Higham, Mikaitis and Pranesh
// 2021, "Numerical behavior of NVIDIA tensor cores", section 4.
float TowardsZero(double x) {
  const auto rounded = static_cast<float>(x);
  if (!std::isfinite(x) || std::fabs(static_cast<double>(rounded)) <= std::fabs(x)) return rounded;
  return std::nextafterf(rounded, 0.0f);
}

// A lane's registers of two elements, widened once for all lanes that need them.
struct WideFragments {
  float a[8];
  float b[4];
};

// 16 x 8 x 16 of elements of two bytes; 8 products at a time are added to the sum.
template <float (*widen)(uint16_t)>
void MultiplyHalves(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&accumulator)[4]) {
  WideFragments mine;
  for (int i = 0; i < 8; ++i) mine.a[i] = widen(static_cast<uint16_t>(a[i / 2] >> (16 * (i % 2))));
  for (int i = 0; i < 4; ++i) mine.b[i] = widen(static_cast<uint16_t>(b[i / 2] >> (16 * (i % 2))));
  const auto lanes = emulator::ExchangeInWarp(mine);
  for (int i = 0; i < 4; ++i) {
    const int row = emulator::Lane() / 4 + 8 * (i / 2);
    const int column = emulator::Lane() % 4 * 2 + i % 2;
    for (int half = 0; half < 2; ++half) {
      double sum = accumulator[i];
      for (int k = 0; k < 8; ++k) {
        sum += double{lanes[row % 8 * 4 + k / 2].a[2 * (row / 8 + 2 * half) + k % 2]} *
               double{lanes[column * 4 + k / 2].b[2 * half + k % 2]};
      }
      accumulator[i] = TowardsZero(sum);
    }
  }
}

float WidenBF16(uint16_t x) { return FloatOf(static_cast<uint32_t>(x) << 16); }

}  // namespace

void MultiplyF16(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&accumulator)[4]) {
  MultiplyHalves<WidenHalf>(a, b, accumulator);
}
void MultiplyBF16(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&accumulator)[4]) {
  MultiplyHalves<WidenBF16>(a, b, accumulator);
}

void MultiplyInt8(const uint32_t (&a)[4], const uint32_t (&b)[2], int32_t (&accumulator)[4]) {
  const auto lanes = ExchangeFragments(a, b);
  const auto code = [](uint32_t four, int i) { return static_cast<int8_t>(four >> (8 * i)); };
  for (int i = 0; i < 4; ++i) {
    const int row = emulator::Lane() / 4 + 8 * (i / 2);
    const int column = emulator::Lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 32; ++k) {
      const int8_t x = code(lanes[row % 8 * 4 + k % 16 / 4].a[row / 8 + 2 * (k / 16)], k % 4);
      const int8_t y = code(lanes[column * 4 + k % 16 / 4].b[k / 16], k % 4);
      accumulator[i] += x * y;
    }
  }
}

}  // namespace sauva::cuda
