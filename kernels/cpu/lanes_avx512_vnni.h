#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/lanes_avx512.h"

namespace sauva {
namespace {

// Int8 dot products by one instruction for four columns. Its first operand is unsigned,
// which is why unpacked weights have an offset; it does not saturate, so sums stay exact.
// GCC 12 copies sums to and fro around the builtin, hence the instruction by name.
struct VnniDots {
  using Integers = Avx512Lanes::Integers;
  static constexpr bool kSigned = false;

  static constexpr int kPanelTokens = 16;
  static constexpr bool kBatches = true;
  static constexpr int kStreamTokens = 3;
  // Memory is read fastest in four streams; more dot products than these do not fit in registers.
  static constexpr int StreamPanels(int tokens, int planes) {
    return tokens * planes <= 2 ? 4 : tokens * planes == 3 ? 3 : 2;
  }

  using Quad = int32_t __attribute__((may_alias, aligned(1)));

  static Integers SetInteger(int32_t x) { return Avx512Lanes::SetInteger(x); }
  static void LookUpNibbles(const uint8_t table[16], const uint8_t* in, uint8_t* to) {
    Avx512Lanes::LookUpNibbles(table, in, to);
  }
  // bytes: [panel, quad, 64].
  template <int kQuads, int kTokens, int kPanels>
  static void DotQuads(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
#pragma GCC unroll 16
    for (int quad = 0; quad < kQuads; ++quad) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        w[p] = _mm512_loadu_si512(bytes + (p * kQuads + quad) * 64);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* at = x + t * 32 + quad * 4;
        if constexpr (kPanels == 1) {  // broadcast by the instruction itself: one less to keep
          __asm__("vpdpbusd %2%{1to16%}, %1, %0"
                  : "+v"(dot[t][0].all)
                  : "v"(w[0]), "m"(*reinterpret_cast<const Quad*>(at)));
          continue;
        }
        const __m512i four = Avx512Lanes::BroadcastQuad(at);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          __asm__("vpdpbusd %2, %1, %0" : "+v"(dot[t][p].all) : "v"(w[p]), "v"(four));
        }
      }
    }
  }
  template <int kQuads, int kTokens, int kPanels>
  static void DotWide(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    DotQuads<kQuads>(dot, bytes, x);
  }
  template <int kQuads, int kTokens, int kPanels>
  static void DotSmall(Integers (&dot)[kTokens][kPanels], const uint8_t* bytes, const int8_t* x) {
    DotQuads<kQuads>(dot, bytes, x);
  }
  static Integers DotQuads(Integers sum, Integers bytes, Integers x) {
    return {_mm512_dpbusd_epi32(sum.all, bytes.all, x.all)};
  }
};

}  // namespace
}  // namespace sauva
