#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/numerics.h"

// 16 lanes as one AVX-512 register. The operations are described in lanes_scalar.h.
namespace sauva {
namespace {

struct Avx512Lanes {
  static constexpr int kRows = 4;
  static constexpr int kTokens = 6;
  static constexpr int kSingleRows = 8;
  static constexpr int kQueries = 8;
  static constexpr int kPanels = 2;
  static constexpr int kPanelTokens = 8;
  static constexpr int kPeakChains = 12;

  __m512 all;

  static Avx512Lanes Set(float x) { return {_mm512_set1_ps(x)}; }
  static Avx512Lanes Zero() { return {_mm512_setzero_ps()}; }
  static Avx512Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Avx512Lanes LoadHalf(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Avx512Lanes LoadBFloat16(const uint16_t* p) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16))};
  }
  static Avx512Lanes LoadInt8(const int8_t* p) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))};
  }
  static __mmask16 FirstLanes(int64_t n) {
    return static_cast<__mmask16>(n >= kLanes ? 0xffffu : (1u << n) - 1u);
  }
  static Avx512Lanes LoadPartial(const float* p, int64_t n) {
    return {_mm512_maskz_loadu_ps(FirstLanes(n), p)};
  }
  static Avx512Lanes LoadHalfPartial(const uint16_t* p, int64_t n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(n), p))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, all); }
  void StorePartial(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, FirstLanes(n), all); }
  void StoreHalf(uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(all, _MM_FROUND_TO_NEAREST_INT));
  }
  float First() const { return _mm512_cvtss_f32(all); }

  static Avx512Lanes Fma(Avx512Lanes a, Avx512Lanes b, Avx512Lanes c) {
    return {_mm512_fmadd_ps(a.all, b.all, c.all)};
  }
  // By one instruction even where *a is wanted twice: compilers would keep it in a register.
  static Avx512Lanes FmaOf(const float* a, Avx512Lanes b, Avx512Lanes c) {
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c.all) : "v"(b.all), "m"(*a));
    return c;
  }
  static Avx512Lanes Add(Avx512Lanes a, Avx512Lanes b) { return {_mm512_add_ps(a.all, b.all)}; }
  static Avx512Lanes Subtract(Avx512Lanes a, Avx512Lanes b) {
    return {_mm512_sub_ps(a.all, b.all)};
  }
  static Avx512Lanes Multiply(Avx512Lanes a, Avx512Lanes b) {
    return {_mm512_mul_ps(a.all, b.all)};
  }
  static Avx512Lanes Divide(Avx512Lanes a, Avx512Lanes b) { return {_mm512_div_ps(a.all, b.all)}; }
  static Avx512Lanes Max(Avx512Lanes a, Avx512Lanes b) { return {_mm512_max_ps(a.all, b.all)}; }
  static Avx512Lanes Min(Avx512Lanes a, Avx512Lanes b) { return {_mm512_min_ps(a.all, b.all)}; }
  static Avx512Lanes Magnitude(Avx512Lanes a) { return {_mm512_abs_ps(a.all)}; }
  static Avx512Lanes IfPositive(Avx512Lanes x, Avx512Lanes a, Avx512Lanes b) {
    const __mmask16 positive = _mm512_cmp_ps_mask(x.all, _mm512_setzero_ps(), _CMP_GT_OQ);
    return {_mm512_mask_blend_ps(positive, b.all, a.all)};
  }
  static uint32_t AboveBits(Avx512Lanes a, Avx512Lanes b) {
    return _mm512_cmp_ps_mask(a.all, b.all, _CMP_NLE_UQ);
  }
  static uint32_t EqualBits(Avx512Lanes a, Avx512Lanes b) {
    return _mm512_cmp_ps_mask(a.all, b.all, _CMP_EQ_OQ);
  }
  static Avx512Lanes IfEqual(Avx512Lanes x, Avx512Lanes y, Avx512Lanes a, Avx512Lanes b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.all, y.all, _CMP_EQ_OQ), b.all, a.all)};
  }
  static Avx512Lanes Range(Avx512Lanes a, int first, int end, float x) {
    const auto mask = static_cast<__mmask16>(FirstLanes(end) & ~FirstLanes(first));
    return {_mm512_mask_blend_ps(mask, _mm512_set1_ps(x), a.all)};
  }
  static Avx512Lanes ScaleByPowerOfTwo(Avx512Lanes p, Avx512Lanes shifted) {
    const __m512 n = _mm512_sub_ps(shifted.all, _mm512_set1_ps(kRoundMagic));
    return {_mm512_scalef_ps(p.all, n)};  // rounded once, as by two exact factors
  }

  static float Sum(Avx512Lanes a) {
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256(a.all), _mm512_extractf32x8_ps(a.all, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  static float Largest(Avx512Lanes a) {
    const __m256 eight =
        _mm256_max_ps(_mm512_castps512_ps256(a.all), _mm512_extractf32x8_ps(a.all, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  // The upper half of each joined to its lower half: first 8 lanes of x, then 8 of y.
  template <class F>
  static __m512 JoinHalves(__m512 x, __m512 y, F join) {
    return join(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
  }
  // Of each of four, four lanes that are left of the tree.
  template <class F>
  static __m512 JoinQuarters(const Avx512Lanes a[4], F join) {
    const __m512 first = JoinHalves(a[0].all, a[1].all, join);
    const __m512 second = JoinHalves(a[2].all, a[3].all, join);
    return join(_mm512_shuffle_f32x4(first, second, 0x88),
                _mm512_shuffle_f32x4(first, second, 0xdd));
  }
  static void Sum4(const Avx512Lanes a[4], float out[4]) {
    __m512 sum = JoinQuarters(a, [](__m512 x, __m512 y) { return _mm512_add_ps(x, y); });
    sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0x4e));
    sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1));
    const __m512i pick = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(pick, sum)));
  }
  template <class F>
  static Avx512Lanes Tree8(const Avx512Lanes a[8], F join) {
    const __m512 low = JoinQuarters(a, join);
    const __m512 high = JoinQuarters(a + 4, join);
    const __m512 two = join(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
    const __m512 one = join(_mm512_shuffle_ps(two, two, 0x88), _mm512_shuffle_ps(two, two, 0xdd));
    const __m512i pick = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
    return {_mm512_permutexvar_ps(pick, one)};
  }
  // Sums and maxima of eight in the first eight lanes.
  static Avx512Lanes Sum8(const Avx512Lanes a[8]) {
    return Tree8(a, [](__m512 x, __m512 y) { return _mm512_add_ps(x, y); });
  }
  static Avx512Lanes Largest8(const Avx512Lanes a[8]) {
    return Tree8(a, [](__m512 x, __m512 y) { return _mm512_max_ps(x, y); });
  }

  static constexpr bool kSigned = false;
  static constexpr bool kBatches = false;
  static constexpr int kStreamTokens = 4;
  static constexpr int StreamPanels(int tokens, int) { return tokens == 1 ? 4 : 2; }
  struct Integers {
    __m512i all;
  };
  static Integers SetInteger(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static __m512i BroadcastQuad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
  }
  // Pairs of products of small bytes, below 16, fit 16 bits eight times over.
  template <int kQuads, int kTokens, int kPanels>
  static void DotSmall(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    const __m512i ones = _mm512_set1_epi16(1);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      __m512i sum[kTokens];
#pragma GCC unroll 8
      for (int quad = 0; quad < kQuads; ++quad) {
        const __m512i w = _mm512_loadu_si512(bytes + (p * kQuads + quad) * 64);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const __m512i pairs = _mm512_maddubs_epi16(w, BroadcastQuad(x + t * 32 + quad * 4));
          sum[t] = quad == 0 ? pairs : _mm512_add_epi16(sum[t], pairs);
        }
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        dot[t][p].all = _mm512_add_epi32(dot[t][p].all, _mm512_madd_epi16(sum[t], ones));
      }
    }
  }
  // Unsigned bytes: columns 0 and 2 of each row, and 1 and 3, as 16-bit numbers.
  template <int kQuads, int kTokens, int kPanels>
  static void DotWide(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
      for (int quad = 0; quad < kQuads; ++quad) {
        const __m512i w = _mm512_loadu_si512(bytes + (p * kQuads + quad) * 64);
        const __m512i even = _mm512_and_si512(w, _mm512_set1_epi16(0xff));
        const __m512i odd = _mm512_srli_epi16(w, 8);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const __m512i four = BroadcastQuad(x + t * 32 + quad * 4);
          const __m512i x_even = _mm512_srai_epi16(_mm512_slli_epi16(four, 8), 8);
          const __m512i sum = _mm512_add_epi32(dot[t][p].all, _mm512_madd_epi16(even, x_even));
          const __m512i x_odd = _mm512_srai_epi16(four, 8);
          dot[t][p].all = _mm512_add_epi32(sum, _mm512_madd_epi16(odd, x_odd));
        }
      }
    }
  }
  static void LookUpNibbles(const uint8_t table[16], const uint8_t* in, uint8_t* to) {
    const __m512i values =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i codes = _mm512_loadu_si512(in);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask);
    _mm512_storeu_si512(to, _mm512_shuffle_epi8(values, _mm512_and_si512(codes, mask)));
    _mm512_storeu_si512(to + 64, _mm512_shuffle_epi8(values, high));
  }
  static Integers Times256(Integers x) { return {_mm512_slli_epi32(x.all, 8)}; }
  static Integers Add(Integers a, Integers b) { return {_mm512_add_epi32(a.all, b.all)}; }
  static Integers LoadZeros(const uint8_t* zeros, int base) {
    const __m512i all =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
    return {_mm512_and_si512(_mm512_sub_epi32(all, _mm512_set1_epi32(base)),
                             _mm512_set1_epi32(0xffff))};
  }
  static Integers TimesZeros(Integers zeros, int32_t by) {
    return {_mm512_madd_epi16(zeros.all, _mm512_set1_epi32(by))};
  }
  static Avx512Lanes ToFloat(Integers x) { return {_mm512_cvtepi32_ps(x.all)}; }
  static Integers DotQuads(Integers sum, Integers bytes, Integers x) {
    const __m512i pairs = _mm512_maddubs_epi16(bytes.all, x.all);
    return {_mm512_add_epi32(sum.all, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
  }
};

}  // namespace
}  // namespace sauva
