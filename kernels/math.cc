#include "kernels/math.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/numerics.h"

namespace sauva {
namespace {

float PowerOfTwo(uint32_t exponent) { return std::bit_cast<float>((exponent + 127u) << 23); }

}  // namespace

float Exp(float x) {
  x = kExpLowest > x ? kExpLowest : x;  // in this order NaN stays NaN
  x = kExpHighest < x ? kExpHighest : x;
  const float shifted = std::fma(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float q = kExpTerms[0];
  for (int i = 1; i < 5; ++i) q = std::fma(q, r, kExpTerms[i]);
  const float p = std::fma(q, r * r, r) + 1.0f;
  // Two factors, because 2^n alone may be too large or too small for a float.
  const int32_t whole =
      static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRoundMagic));
  const int32_t half = whole >> 1;
  return p * PowerOfTwo(static_cast<uint32_t>(half)) *
         PowerOfTwo(static_cast<uint32_t>(whole) - static_cast<uint32_t>(half));
}

double Log(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xfffffffffffffu) | 0x3ff0000000000000u);
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    ++exponent;
  }
  // log m = 2 atanh(f), |f| < 0.172: 11 terms leave less than 1e-17.
  const double f = (mantissa - 1.0) / (mantissa + 1.0);
  const double f2 = f * f;
  double sum = 0;
  for (int k = 10; k >= 0; --k) sum = sum * f2 + 1.0 / (2 * k + 1);
  return static_cast<double>(exponent) * 0.6931471805599453 + 2.0 * f * sum;
}

SinCos SinCosOf(double angle) {
  // pi / 2 in three parts, the first two short enough for exact products.
  constexpr double kHigh = 0x1.921fb544p0;
  constexpr double kMiddle = 0x1.0b4611a6p-34;
  constexpr double kLow = 0x1.3198a2e037073p-69;
  constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer
  const double shifted = angle * 0.6366197723675814 + kMagic;
  const double n = shifted - kMagic;
  const double r = ((angle - n * kHigh) - n * kMiddle) - n * kLow;
  const double r2 = r * r;
  double s = 0;  // Taylor: |r| < 0.79, so 9 terms leave less than 1e-18
  double c = 0;
  for (int k = 8; k >= 0; --k) {
    s = 1.0 - s * r2 / ((2 * k + 2) * (2 * k + 3));
    c = 1.0 - c * r2 / ((2 * k + 1) * (2 * k + 2));
  }
  s *= r;
  switch (std::bit_cast<uint64_t>(shifted) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

float Silu(float x) { return x / (1.0f + Exp(-x)); }

float Gelu(float x) {
  const float magnitude = std::fabs(x);
  const float t = 1.0f / std::fma(kNormalTailStep, magnitude, 1.0f);
  float p = kNormalTailTerms[0];
  for (int i = 1; i < 9; ++i) p = std::fma(p, t, kNormalTailTerms[i]);
  const float tail = p * t * Exp(x * x * -0.5f);
  return x > 0 ? std::fma(-x, tail, x) : x * tail;
}

float GeluTanh(float x) {
  const float inner = x * std::fma(kGeluTanhCubic * x, x, 1.0f);
  return x / (1.0f + Exp(inner * -kGeluTanhTwice));
}

float Apply(GateKind kind, float x) {
  switch (kind) {
    case GateKind::kSilu:
      return Silu(x);
    case GateKind::kGelu:
      return Gelu(x);
    case GateKind::kGeluTanh:
      return GeluTanh(x);
    case GateKind::kRelu:
      return 0.0f > x ? 0.0f : x;
  }
  return x;
}

}  // namespace sauva
