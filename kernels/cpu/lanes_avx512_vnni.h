#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/lanes_avx512.h"

namespace sauva {
namespace {

// Int8 dot products by one instruction for four columns. Its first operand is unsigned,
// which is why unpacked weights have an offset; it does not saturate, so sums stay exact.
// GCC 12 copies sums to and fro around the builtin, hence the instruction by name; with more
// than 8 tokens it keeps some of the sums in memory.
struct VnniDots {
  using Integers = Avx512Lanes::Integers;
  static constexpr bool kSigned = false;

  static constexpr int kPanelTokens = 8;

  static Integers SetInteger(int32_t x) { return Avx512Lanes::SetInteger(x); }
  static void LookUpNibbles(const uint8_t table[16], const uint8_t* in, uint8_t* to) {
    Avx512Lanes::LookUpNibbles(table, in, to);
  }
  template <int kTokens, int kPanels>
  static void DotWide(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
#pragma GCC unroll 16
    for (int quad = 0; quad < 8; ++quad) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) w[p] = _mm512_loadu_si512(bytes + p * 512 + quad * 64);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const __m512i four = Avx512Lanes::BroadcastQuad(x + t * 32 + quad * 4);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          __asm__("vpdpbusd %2, %1, %0" : "+v"(dot[t][p].all) : "v"(w[p]), "v"(four));
        }
      }
    }
  }
  template <int kTokens, int kPanels>
  static void DotSmall(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    DotWide(dot, bytes, x);
  }
  static Integers DotQuads(Integers sum, Integers bytes, Integers x) {
    return {_mm512_dpbusd_epi32(sum.all, bytes.all, x.all)};
  }
};

}  // namespace
}  // namespace sauva
