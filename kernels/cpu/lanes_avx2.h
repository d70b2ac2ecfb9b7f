#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/numerics.h"

// 16 lanes as two AVX2 registers. The operations are described in lanes_scalar.h.
namespace sauva {
namespace {

struct Avx2Lanes {
  static constexpr int kRows = 2;
  static constexpr int kTokens = 3;
  static constexpr int kSingleRows = 4;
  static constexpr int kQueries = 2;
  static constexpr int kPanels = 1;
  static constexpr int kPanelTokens = 4;
  static constexpr int kPeakChains = 6;

  __m256 low, high;

  static Avx2Lanes Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Avx2Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Avx2Lanes Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static __m128i Load128(const uint16_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static Avx2Lanes LoadHalf(const uint16_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 8))};
  }
  static Avx2Lanes LoadInt8(const int8_t* p) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)))};
  }
  static __m256 WidenBFloat16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static Avx2Lanes LoadBFloat16(const uint16_t* p) {
    return {WidenBFloat16(Load128(p)), WidenBFloat16(Load128(p + 8))};
  }
  static Avx2Lanes LoadPartial(const float* p, int64_t n) {
    float copy[kLanes] = {};
    for (int64_t i = 0; i < n && i < kLanes; ++i) copy[i] = p[i];
    return Load(copy);
  }
  static Avx2Lanes LoadHalfPartial(const uint16_t* p, int64_t n) {
    uint16_t copy[kLanes] = {};
    for (int64_t i = 0; i < n && i < kLanes; ++i) copy[i] = p[i];
    return LoadHalf(copy);
  }
  void Store(float* p) const {
    _mm256_storeu_ps(p, low);
    _mm256_storeu_ps(p + 8, high);
  }
  void StorePartial(float* p, int64_t n) const {
    float copy[kLanes];
    Store(copy);
    for (int64_t i = 0; i < n && i < kLanes; ++i) p[i] = copy[i];
  }
  void StoreHalf(uint16_t* p) const {
    const auto half = [](__m256 x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); };
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), half(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), half(high));
  }
  float First() const { return _mm256_cvtss_f32(low); }

  static Avx2Lanes Fma(Avx2Lanes a, Avx2Lanes b, Avx2Lanes c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static Avx2Lanes FmaOf(const float* a, Avx2Lanes b, Avx2Lanes c) { return Fma(Set(*a), b, c); }
  static Avx2Lanes Add(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static Avx2Lanes Subtract(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static Avx2Lanes Multiply(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static Avx2Lanes Divide(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  static Avx2Lanes Max(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  static Avx2Lanes Min(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  static Avx2Lanes Magnitude(Avx2Lanes a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
  }
  static __m256 Select(__m256 x, __m256 a, __m256 b) {
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
  }
  static Avx2Lanes IfPositive(Avx2Lanes x, Avx2Lanes a, Avx2Lanes b) {
    return {Select(x.low, a.low, b.low), Select(x.high, a.high, b.high)};
  }
  static uint32_t AboveBits(Avx2Lanes a, Avx2Lanes b) {
    const auto bits = [](__m256 x, __m256 y) {
      return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_NLE_UQ)));
    };
    return bits(a.low, b.low) | bits(a.high, b.high) << 8;
  }
  static uint32_t EqualBits(Avx2Lanes a, Avx2Lanes b) {
    const auto bits = [](__m256 x, __m256 y) {
      return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_EQ_OQ)));
    };
    return bits(a.low, b.low) | bits(a.high, b.high) << 8;
  }
  static Avx2Lanes IfEqual(Avx2Lanes x, Avx2Lanes y, Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_blendv_ps(b.low, a.low, _mm256_cmp_ps(x.low, y.low, _CMP_EQ_OQ)),
            _mm256_blendv_ps(b.high, a.high, _mm256_cmp_ps(x.high, y.high, _CMP_EQ_OQ))};
  }
  static Avx2Lanes Range(Avx2Lanes a, int first, int end, float x) {
    float copy[kLanes];
    a.Store(copy);
    for (int i = 0; i < kLanes; ++i) {
      if (i < first || i >= end) copy[i] = x;
    }
    return Load(copy);
  }
  static __m256 ScaleHalf(__m256 p, __m256 shifted) {
    const __m256i magic = _mm256_castps_si256(_mm256_set1_ps(kRoundMagic));
    const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), magic);
    const __m256i half = _mm256_srai_epi32(n, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const auto power = [&](__m256i exponent) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(exponent, bias), 23));
    };
    return _mm256_mul_ps(_mm256_mul_ps(p, power(half)), power(_mm256_sub_epi32(n, half)));
  }
  static Avx2Lanes ScaleByPowerOfTwo(Avx2Lanes p, Avx2Lanes shifted) {
    return {ScaleHalf(p.low, shifted.low), ScaleHalf(p.high, shifted.high)};
  }

  static float Sum(Avx2Lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  static float Largest(Avx2Lanes a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  static __m128 FourOf(Avx2Lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  }
  static void Sum4(const Avx2Lanes a[4], float out[4]) {
    const auto pairs = [](__m128 x, __m128 y) {  // x0+x2, x1+x3, y0+y2, y1+y3
      return _mm_add_ps(_mm_movelh_ps(x, y), _mm_movehl_ps(y, x));
    };
    const __m128 first = pairs(FourOf(a[0]), FourOf(a[1]));
    const __m128 second = pairs(FourOf(a[2]), FourOf(a[3]));
    _mm_storeu_ps(
        out, _mm_add_ps(_mm_shuffle_ps(first, second, 0x88), _mm_shuffle_ps(first, second, 0xdd)));
  }

  static constexpr bool kSigned = true;
  static constexpr bool kBatches = false;
  static constexpr int kStreamTokens = 4;
  static constexpr int StreamPanels(int, int) { return 1; }
  struct Integers {
    __m256i low, high;
  };
  static Integers SetInteger(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static __m256i LoadWords(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m256i BroadcastQuad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
  }
  // Pairs of products of small bytes, below 16, fit 16 bits eight times over.
  template <int kQuads, int kTokens, int kPanels>
  static void DotSmall(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int p = 0; p < kPanels; ++p) {
      __m256i low[kTokens], high[kTokens];
#pragma GCC unroll 8
      for (int quad = 0; quad < kQuads; ++quad) {
        const __m256i w_low = LoadWords(bytes + (p * kQuads + quad) * 64);
        const __m256i w_high = LoadWords(bytes + (p * kQuads + quad) * 64 + 32);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const __m256i four = BroadcastQuad(x + t * 32 + quad * 4);
          const __m256i pairs_low = _mm256_maddubs_epi16(w_low, four);
          const __m256i pairs_high = _mm256_maddubs_epi16(w_high, four);
          low[t] = quad == 0 ? pairs_low : _mm256_add_epi16(low[t], pairs_low);
          high[t] = quad == 0 ? pairs_high : _mm256_add_epi16(high[t], pairs_high);
        }
      }
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        dot[t][p].low = _mm256_add_epi32(dot[t][p].low, _mm256_madd_epi16(low[t], ones));
        dot[t][p].high = _mm256_add_epi32(dot[t][p].high, _mm256_madd_epi16(high[t], ones));
      }
    }
  }
  // Pairs of products of two signed bytes, of which x is never -128, fit 16 bits once.
  template <int kQuads, int kTokens, int kPanels>
  static void DotWide(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    const __m256i ones = _mm256_set1_epi16(1);
    const auto add = [ones](__m256i sum, __m256i w, __m256i magnitude, __m256i four) {
      const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, w));
      return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    };
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
      for (int quad = 0; quad < kQuads; ++quad) {
        const __m256i w_low = LoadWords(bytes + (p * kQuads + quad) * 64);
        const __m256i w_high = LoadWords(bytes + (p * kQuads + quad) * 64 + 32);
        const __m256i low = _mm256_abs_epi8(w_low);
        const __m256i high = _mm256_abs_epi8(w_high);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const __m256i four = BroadcastQuad(x + t * 32 + quad * 4);
          dot[t][p].low = add(dot[t][p].low, w_low, low, four);
          dot[t][p].high = add(dot[t][p].high, w_high, high, four);
        }
      }
    }
  }
  static void LookUpNibbles(const uint8_t table[16], const uint8_t* in, uint8_t* to) {
    const __m256i values =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    const __m256i mask = _mm256_set1_epi8(15);
    for (int i = 0; i < 64; i += 32) {
      const __m256i codes = LoadWords(in + i);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                          _mm256_shuffle_epi8(values, _mm256_and_si256(codes, mask)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 64 + i),
                          _mm256_shuffle_epi8(values, high));
    }
  }
  static Integers Times256(Integers x) {
    return {_mm256_slli_epi32(x.low, 8), _mm256_slli_epi32(x.high, 8)};
  }
  static Integers Add(Integers a, Integers b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  static __m256i EightZeros(const uint8_t* zeros, int base) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros));
    const __m256i less = _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(base));
    return _mm256_and_si256(less, _mm256_set1_epi32(0xffff));
  }
  static Integers LoadZeros(const uint8_t* zeros, int base) {
    return {EightZeros(zeros, base), EightZeros(zeros + 8, base)};
  }
  static Integers TimesZeros(Integers zeros, int32_t by) {
    const __m256i all = _mm256_set1_epi32(by);
    return {_mm256_madd_epi16(zeros.low, all), _mm256_madd_epi16(zeros.high, all)};
  }
  static Avx2Lanes ToFloat(Integers x) {
    return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)};
  }
  static __m256i DotQuads(__m256i sum, __m256i bytes, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(bytes, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static Integers DotQuads(Integers sum, Integers bytes, Integers x) {
    return {DotQuads(sum.low, bytes.low, x.low), DotQuads(sum.high, bytes.high, x.high)};
  }
};

}  // namespace
}  // namespace sauva
