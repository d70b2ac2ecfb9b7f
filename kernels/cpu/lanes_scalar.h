#pragma once

#include <cstdint>

#include "kernels/half.h"
#include "kernels/numerics.h"

// 16 lanes as an array: any CPU. The interface of a lane type is written here; the other
// lanes_*.h have the same.
namespace sauva {
namespace {

struct ScalarLanes {
  // Register tiles: weight rows times tokens for several tokens and for one; queries.
  static constexpr int kRows = 1;
  static constexpr int kTokens = 1;
  static constexpr int kSingleRows = 1;
  static constexpr int kQueries = 1;
  static constexpr int kPanels = 1;
  static constexpr int kPanelTokens = 1;
  static constexpr int kPeakChains = 12;  // kernels/cpu/rates.inc.h; a divisor of 12

  float lane[kLanes];

  template <class F>
  static ScalarLanes Make(F f) {
    ScalarLanes result;
    for (int i = 0; i < kLanes; ++i) result.lane[i] = f(i);
    return result;
  }
  static uint32_t Bits(float x) { return __builtin_bit_cast(uint32_t, x); }
  static float PowerOfTwo(int32_t exponent) {
    return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
  }

  static ScalarLanes Set(float x) {
    return Make([&](int) { return x; });
  }
  static ScalarLanes Zero() { return Set(0.0f); }
  static ScalarLanes Load(const float* p) {
    return Make([&](int i) { return p[i]; });
  }
  static ScalarLanes LoadHalf(const uint16_t* p) {
    return Make([&](int i) { return HalfToFloat(p[i]); });
  }
  static ScalarLanes LoadBFloat16(const uint16_t* p) {
    return Make([&](int i) { return BFloat16ToFloat(p[i]); });
  }
  static ScalarLanes LoadInt8(const int8_t* p) {
    return Make([&](int i) { return static_cast<float>(p[i]); });
  }
  // The first n lanes from p, the others zero.
  static ScalarLanes LoadPartial(const float* p, int64_t n) {
    return Make([&](int i) { return i < n ? p[i] : 0.0f; });
  }
  static ScalarLanes LoadHalfPartial(const uint16_t* p, int64_t n) {
    return Make([&](int i) { return i < n ? HalfToFloat(p[i]) : 0.0f; });
  }
  void Store(float* p) const {
    for (int i = 0; i < kLanes; ++i) p[i] = lane[i];
  }
  void StorePartial(float* p, int64_t n) const {
    for (int i = 0; i < kLanes && i < n; ++i) p[i] = lane[i];
  }
  void StoreHalf(uint16_t* p) const {
    for (int i = 0; i < kLanes; ++i) p[i] = FloatToHalf(lane[i]);
  }
  float First() const { return lane[0]; }

  // a * b + c, rounded once.
  static ScalarLanes Fma(ScalarLanes a, ScalarLanes b, ScalarLanes c) {
    return Make([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  // *a * b + c in every lane.
  static ScalarLanes FmaOf(const float* a, ScalarLanes b, ScalarLanes c) {
    return Fma(Set(*a), b, c);
  }
  static ScalarLanes Add(ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static ScalarLanes Subtract(ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static ScalarLanes Multiply(ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static ScalarLanes Divide(ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  // a > b ? a : b, so b when one is NaN.
  static ScalarLanes Max(ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // a < b ? a : b.
  static ScalarLanes Min(ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static ScalarLanes Magnitude(ScalarLanes a) {
    return Make([&](int i) { return __builtin_fabsf(a.lane[i]); });
  }
  // x > 0 ? a : b.
  static ScalarLanes IfPositive(ScalarLanes x, ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return x.lane[i] > 0 ? a.lane[i] : b.lane[i]; });
  }
  // Bit i: lanes i are equal.
  // Where a > b or one is NaN.
  static uint32_t AboveBits(ScalarLanes a, ScalarLanes b) {
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(!(a.lane[i] <= b.lane[i])) << i;
    return bits;
  }
  static uint32_t EqualBits(ScalarLanes a, ScalarLanes b) {
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a.lane[i] == b.lane[i]) << i;
    return bits;
  }
  // x == y ? a : b.
  static ScalarLanes IfEqual(ScalarLanes x, ScalarLanes y, ScalarLanes a, ScalarLanes b) {
    return Make([&](int i) { return x.lane[i] == y.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // The lanes in [first, end) from a, the others x.
  static ScalarLanes Range(ScalarLanes a, int first, int end, float x) {
    return Make([&](int i) { return i >= first && i < end ? a.lane[i] : x; });
  }
  // p * 2^n, where shifted = n + kRoundMagic.
  static ScalarLanes ScaleByPowerOfTwo(ScalarLanes p, ScalarLanes shifted) {
    return Make([&](int i) {
      const auto n = static_cast<int32_t>(Bits(shifted.lane[i]) - Bits(kRoundMagic));
      // NaN left an arbitrary n, whose factors must merely be computable.
      const int32_t bounded = n < -160 ? -160 : n > 160 ? 160 : n;
      const int32_t half = bounded >> 1;
      return p.lane[i] * PowerOfTwo(half) * PowerOfTwo(bounded - half);
    });
  }

  // The tree of the contract: 8+8, 4+4, 2+2, 1+1.
  static float Sum(ScalarLanes a) {
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) a.lane[i] = a.lane[i] + a.lane[i + width];
    }
    return a.lane[0];
  }
  static float Largest(ScalarLanes a) {
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) {
        a.lane[i] = a.lane[i] > a.lane[i + width] ? a.lane[i] : a.lane[i + width];
      }
    }
    return a.lane[0];
  }
  // The sums of four at once, in the lanes 0 to 3 of out.
  static void Sum4(const ScalarLanes a[4], float out[4]) {
    for (int i = 0; i < 4; ++i) out[i] = Sum(a[i]);
  }

  // Exact dot products of int8 codes x with unpacked weights (kernels/cpu/unpack.inc.h).
  static constexpr bool kSigned = true;  // wide bytes
  // Whether more tokens than few meet two quads at a time, which stay in registers; else a piece
  // of the matrix that is unpacked for all of them.
  static constexpr bool kBatches = false;
  // Up to so many tokens weights are streamed past sums in registers, so many panels at a time.
  static constexpr int kStreamTokens = 1;
  static constexpr int StreamPanels(int, int) { return 1; }
  struct Integers {
    int32_t lane[kLanes];
  };
  static Integers SetInteger(int32_t x) {
    Integers result;
    for (int32_t& value : result.lane) value = x;
    return result;
  }
  // dot[t][p] += kQuads quads of panel p, from `bytes` + p * kQuads * 64, times x + t * 32.
  template <class Byte, int kQuads, int kTokens, int kPanels>
  static void DotBytes(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    for (int t = 0; t < kTokens; ++t) {
      for (int p = 0; p < kPanels; ++p) {
        for (int i = 0; i < kQuads * 64; ++i) {
          const auto weight = static_cast<Byte>(bytes[p * kQuads * 64 + i]);
          dot[t][p].lane[i % 64 / 4] += weight * x[t * 32 + i / 64 * 4 + i % 4];
        }
      }
    }
  }
  template <int kQuads, int kTokens, int kPanels>
  static void DotSmall(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    DotBytes<uint8_t, kQuads>(dot, bytes, x);
  }
  template <int kQuads, int kTokens, int kPanels>
  static void DotWide(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    DotBytes<int8_t, kQuads>(dot, bytes, x);
  }
  // to[i] = table[low nibble of in[i]], to[64 + i] that of its high one, i < 64.
  static void LookUpNibbles(const uint8_t table[16], const uint8_t* in, uint8_t* to) {
    for (int i = 0; i < 64; ++i) {
      to[i] = table[in[i] & 15];
      to[64 + i] = table[in[i] >> 4];
    }
  }
  // x * 2^8.
  static Integers Times256(Integers x) {
    for (int32_t& value : x.lane) value *= 256;
    return x;
  }
  static Integers Add(Integers a, Integers b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] += b.lane[i];
    return a;
  }
  // zeros - base, in a form of the lane type's own for TimesZeros; magnitudes below 2^15.
  static Integers LoadZeros(const uint8_t* zeros, int base) {
    Integers result;
    for (int i = 0; i < kLanes; ++i) result.lane[i] = zeros[i] - base;
    return result;
  }
  // (zeros - base) * by, the magnitude of by below 2^15.
  static Integers TimesZeros(Integers zeros, int32_t by) {
    for (int32_t& value : zeros.lane) value *= by;
    return zeros;
  }
  static ScalarLanes ToFloat(Integers x) {
    return Make([&](int i) { return static_cast<float>(x.lane[i]); });
  }
  // sum += the products of four bytes below 128 with four codes, lane by lane: the step of
  // which integer peaks are made.
  static Integers DotQuads(Integers sum, Integers bytes, Integers x) {
    for (int i = 0; i < kLanes; ++i) {
      for (int shift = 0; shift < 32; shift += 8) {
        const auto byte = static_cast<uint8_t>(bytes.lane[i] >> shift);
        sum.lane[i] += byte * static_cast<int8_t>(x.lane[i] >> shift);
      }
    }
    return sum;
  }
};

}  // namespace
}  // namespace sauva
