#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.inc.h"
#include "kernels/numerics.h"

// Packed codes to what integer dot products take: a unit of 16 rows and 32 columns as bytes.
// Codes of up to 4 bits are "small" bytes, in [0, 16), as they are; others are "wide" bytes,
// signed or with 128 added as D likes them, of code - 128; NF4 has a plane of low and one of
// high wide bytes.
namespace sauva {
namespace {

// Four columns of some rows: a vector register of the compiler's target, since larger ones are
// taken apart through memory.
#if defined(__AVX512F__)
constexpr int kWordsSize = 64;
#elif defined(__AVX2__)
constexpr int kWordsSize = 32;
#else
constexpr int kWordsSize = 16;
#endif
using Words = uint32_t __attribute__((vector_size(kWordsSize)));
using StoredWords = uint32_t __attribute__((vector_size(kWordsSize), may_alias, aligned(1)));

inline Words LoadWords(const uint8_t* from) { return *reinterpret_cast<const StoredWords*>(from); }
inline void StoreWords(Words words, uint8_t* to) { *reinterpret_cast<StoredWords*>(to) = words; }

constexpr int kUnitSize = kQuads * kQuadBytes;  // bytes of an unpacked plane
constexpr int kPairs = kQuads / 2;
constexpr int kPairSize = 2 * kQuadBytes;
constexpr uint32_t kEveryByte = 0x01010101u;

constexpr bool IsSmall(CodeFormat format) {
  return format == CodeFormat::kBits4 || format == CodeFormat::kBits3;
}
constexpr int PlanesOf(CodeFormat format) { return format == CodeFormat::kNf4 ? 2 : 1; }

// What D's dot products must subtract, times the sum of activations, from wide bytes.
template <class D>
constexpr int kWideOffset = D::kSigned ? 0 : 128;

// What unpacking already took off each code.
template <class D, CodeFormat kFormat>
constexpr int kCodeBase = IsSmall(kFormat) ? 0 : 128 - kWideOffset<D>;

// What is still to be taken off where there are no zero points.
template <class D, CodeFormat kFormat>
constexpr int kCodeOffset = kFormat == CodeFormat::kNf4
                                ? kWideOffset<D>
                                : MiddleZero(kFormat) - kCodeBase<D, kFormat>;

// Pair `pair` of quads, 2 * pair and the next, to `out`.
inline void UnpackPairBits4(const uint8_t* unit, int pair, uint8_t* out) {
#pragma GCC unroll 4
  for (int b = 0; b < kQuadBytes; b += kWordsSize) {
    const Words in = LoadWords(unit + pair * kQuadBytes + b);
    StoreWords(in & 0x0f0f0f0fu, out + b);
    StoreWords(in >> 4 & 0x0f0f0f0fu, out + kQuadBytes + b);
  }
}

inline void UnpackPairBits3(const uint8_t* unit, int pair, uint8_t* out) {
#pragma GCC unroll 4
  for (int b = 0; b < kQuadBytes; b += kWordsSize) {
    const Words high = LoadWords(unit + 2 * kQuadBytes + b);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int quad = 2 * pair + i;
      const Words two = LoadWords(unit + quad / 4 * kQuadBytes + b) >> (2 * (quad % 4));
      const Words third = quad < 2 ? high << (2 - quad) : high >> (quad - 2);
      StoreWords((two & 0x03030303u) | (third & 0x04040404u), out + i * kQuadBytes + b);
    }
  }
}

template <class D>
inline void UnpackPairBits8(const uint8_t* unit, int pair, uint8_t* out) {
  constexpr uint32_t kFlip = D::kSigned ? 0x80u * kEveryByte : 0;
#pragma GCC unroll 8
  for (int b = 0; b < kPairSize; b += kWordsSize) {
    StoreWords(LoadWords(unit + pair * kPairSize + b) ^ kFlip, out + b);
  }
}

// The planes of kNf4Fixed: fixed = 256 * (high - offset) + low, low signed if D is and
// without an offset.
struct Nf4Tables {
  alignas(16) uint8_t low[16];
  alignas(16) uint8_t high[16];
};
template <class D>
constexpr Nf4Tables MakeNf4Tables() {
  Nf4Tables tables = {};
  for (int code = 0; code < 16; ++code) {
    const int fixed = kNf4Fixed[code] + 32768;
    const int low = D::kSigned && (fixed & 255) > 127 ? (fixed & 255) - 256 : fixed & 255;
    const int high = (fixed - low) / 256 - 128 + kWideOffset<D>;
    tables.low[code] = static_cast<uint8_t>(low & 255);
    tables.high[code] = static_cast<uint8_t>(high & 255);
  }
  return tables;
}

template <class D>
inline void UnpackPairNf4(const uint8_t* unit, int pair, uint8_t* out, int64_t plane_stride) {
  static constexpr Nf4Tables kTables = MakeNf4Tables<D>();
  const uint8_t* in = unit + pair * kQuadBytes;
  D::LookUpNibbles(kTables.low, in, out);
  D::LookUpNibbles(kTables.high, in, out + plane_stride);
}

// Two quads; NF4 has two planes, low and high, `plane_stride` bytes apart.
template <class D, CodeFormat kFormat>
inline void UnpackPair(const uint8_t* unit, int pair, uint8_t* out, int64_t plane_stride) {
  if constexpr (kFormat == CodeFormat::kNf4) UnpackPairNf4<D>(unit, pair, out, plane_stride);
  if constexpr (kFormat == CodeFormat::kBits8) UnpackPairBits8<D>(unit, pair, out);
  if constexpr (kFormat == CodeFormat::kBits4) UnpackPairBits4(unit, pair, out);
  if constexpr (kFormat == CodeFormat::kBits3) UnpackPairBits3(unit, pair, out);
}

template <class D, CodeFormat kFormat>
inline void UnpackUnit(const uint8_t* unit, uint8_t* out, int64_t plane_stride) {
#pragma GCC unroll 4
  for (int pair = 0; pair < kPairs; ++pair) {
    UnpackPair<D, kFormat>(unit, pair, out + pair * kPairSize, plane_stride);
  }
}

}  // namespace
}  // namespace sauva
