#pragma once

#include "kernels/backend.h"

// Elementary functions made of IEEE operations only, so that they give the same bits on
// every machine and C library. The cpu backend's lanes compute the same in 16 lanes.
namespace sauva {

// e^x to 1 unit in the last place; 0 below -104, infinity above 88.73; NaN stays NaN.
float Exp(float x);

// Natural logarithm to double precision. x: positive, finite.
double Log(double x);

// sin and cos of an angle in radians. |angle| < 2^28.
struct SinCos {
  double sin = 0;
  double cos = 0;
};
SinCos SinCosOf(double angle);

// x / (1 + e^-x).
float Silu(float x);
// x Phi(x), Phi the normal distribution.
float Gelu(float x);
// The tanh approximation of Gelu. Source: Hendrycks and Gimpel 2016.
float GeluTanh(float x);
float Apply(GateKind kind, float x);

}  // namespace sauva
