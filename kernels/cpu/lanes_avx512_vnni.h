#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/lanes_avx512.h"

namespace sauva {
namespace {

// Int8 dot products by one instruction for four columns. Its first operand is unsigned,
// which is why weights are stored as code + 128 and each sum starts at -128 * sum(x); it
// does not saturate, so the sums stay exact.
struct VnniDots {
  using Integers = Avx512Lanes::Integers;
  struct Bytes {
    __m512i all;
  };
  struct Quad {
    __m512i all;
  };
  static Bytes LoadBytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
  static Quad LoadQuad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return {_mm512_set1_epi32(four)};
  }
  static Integers SetInteger(int32_t x) { return Avx512Lanes::SetInteger(x); }
  static Integers DotQuads(Integers sum, Bytes w, Quad x) {
    return {_mm512_dpbusd_epi32(sum.all, w.all, x.all)};
  }
  static Avx512Lanes ToFloat(Integers x) { return Avx512Lanes::ToFloat(x); }
};

}  // namespace
}  // namespace sauva
