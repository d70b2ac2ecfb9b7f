#pragma once

#include "kernels/numerics.h"

// kernels/math.cc in 16 lanes, operation for operation.
namespace sauva {
namespace {

template <class L>
inline L ExpLanes(L x) {
  x = L::Max(L::Set(kExpLowest), x);
  x = L::Min(L::Set(kExpHighest), x);
  const L shifted = L::Fma(x, L::Set(kLog2E), L::Set(kRoundMagic));
  const L n = L::Subtract(shifted, L::Set(kRoundMagic));
  L r = L::Fma(n, L::Set(-kLn2High), x);
  r = L::Fma(n, L::Set(-kLn2Low), r);
  L q = L::Set(kExpTerms[0]);
#pragma GCC unroll 4
  for (int i = 1; i < 5; ++i) q = L::Fma(q, r, L::Set(kExpTerms[i]));
  const L p = L::Add(L::Fma(q, L::Multiply(r, r), r), L::Set(1.0f));
  return L::ScaleByPowerOfTwo(p, shifted);
}

template <class L>
inline float ExpOne(float x) {
  return ExpLanes<L>(L::Set(x)).First();
}

// x / (1 + e^y).
template <class L>
inline L OverOnePlusExp(L x, L y) {
  return L::Divide(x, L::Add(L::Set(1.0f), ExpLanes<L>(y)));
}

template <class L>
inline L Negate(L x) {  // by the sign bit, NaN and zero included
  return L::Multiply(x, L::Set(-1.0f));
}

struct SiluGate {
  template <class L>
  static L Apply(L x) {
    return OverOnePlusExp<L>(x, Negate<L>(x));
  }
};

struct GeluGate {
  template <class L>
  static L Apply(L x) {
    const L t =
        L::Divide(L::Set(1.0f), L::Fma(L::Set(kNormalTailStep), L::Magnitude(x), L::Set(1.0f)));
    L p = L::Set(kNormalTailTerms[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 9; ++i) p = L::Fma(p, t, L::Set(kNormalTailTerms[i]));
    const L square = L::Multiply(L::Multiply(x, x), L::Set(-0.5f));
    const L tail = L::Multiply(L::Multiply(p, t), ExpLanes<L>(square));
    return L::IfPositive(x, L::Fma(Negate<L>(x), tail, x), L::Multiply(x, tail));
  }
};

struct GeluTanhGate {
  template <class L>
  static L Apply(L x) {
    const L cubic = L::Multiply(L::Set(kGeluTanhCubic), x);
    const L inner = L::Multiply(x, L::Fma(cubic, x, L::Set(1.0f)));
    return OverOnePlusExp<L>(x, L::Multiply(inner, L::Set(-kGeluTanhTwice)));
  }
};

struct ReluGate {
  template <class L>
  static L Apply(L x) {
    return L::Max(L::Zero(), x);
  }
};

}  // namespace
}  // namespace sauva
