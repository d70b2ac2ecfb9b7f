#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/quantize.inc.h"
#include "kernels/cpu/storage.inc.h"
#include "kernels/numerics.h"

// How a KV block of one head is stored, by type: written token by token, read back as f32.
// Keys are stored transposed, [head_dim, 16 tokens], values as they come, [16 tokens,
// head_dim]; int8 codes are followed by the scales of 16 keys and of 16 values.
namespace sauva {
namespace {

// A block whose numbers are read as f32 wherever they are wanted. Each such view has
// Keys(d): dim d of the 16 keys, and Values(j, d): 16 dims of value j from d on.
template <class L, class S>
struct FloatsBlock {
  using Element = typename S::Element;
  static constexpr bool kWide = sizeof(Element) == sizeof(float);  // nothing is left to widen
  const Element* keys;
  const Element* values;
  int64_t row;  // elements from value to value

  static FloatsBlock At(const unsigned char* block, int head_dim) {
    const auto* keys = reinterpret_cast<const Element*>(block);
    return {keys, keys + int64_t{head_dim} * kAttentionBlock, head_dim};
  }
  L Keys(int d) const { return S::Load(keys + d * kAttentionBlock); }
  L Values(int j, int d) const { return S::Load(values + j * row + d); }
  L SomeValues(int j, int d, int n) const { return S::LoadPartial(values + j * row + d, n); }
};

template <class L>
struct Int8Block {
  static constexpr bool kWide = false;
  const int8_t* keys;
  int64_t head_dim;

  static Int8Block At(const unsigned char* block, int head_dim) {
    return {reinterpret_cast<const int8_t*>(block), head_dim};
  }
  const int8_t* values() const { return keys + head_dim * kAttentionBlock; }
  const float* scales() const {  // of 16 keys and of 16 values
    return reinterpret_cast<const float*>(values() + head_dim * kAttentionBlock);
  }
  L Keys(int d) const {
    return L::Multiply(L::LoadInt8(keys + d * kAttentionBlock), L::Load(scales()));
  }
  L Values(int j, int d) const {
    const L scale = L::Set(scales()[kAttentionBlock + j]);
    return L::Multiply(L::LoadInt8(values() + j * head_dim + d), scale);
  }
  L SomeValues(int j, int d, int n) const {
    float some[kLanes] = {};
    for (int i = 0; i < n; ++i) {
      some[i] = static_cast<float>(values()[j * head_dim + d + i]) * scales()[kAttentionBlock + j];
    }
    return L::Load(some);
  }
};

// Where a block is widened to f32, rows of values padded to whole lanes.
struct BlockScratch {
  float* keys;    // [head_dim, 16]
  float* values;  // [16, padded]
  int head_dim;
  int padded;  // head_dim in whole lanes
};

template <class L>
using WideBlock = FloatsBlock<L, AsF32<L>>;

// Widened once for many readers.
template <class L, class Block>
inline WideBlock<L> Widen(const Block& block, const BlockScratch& to) {
  for (int d = 0; d < to.head_dim; ++d) block.Keys(d).Store(to.keys + d * kAttentionBlock);
  for (int j = 0; j < kAttentionBlock; ++j) {
    float* row = to.values + j * to.padded;
    int d = 0;
    for (; d + kLanes <= to.head_dim; d += kLanes) block.Values(j, d).Store(row + d);
    if (d < to.head_dim) block.SomeValues(j, d, to.head_dim - d).Store(row + d);
  }
  return {to.keys, to.values, to.padded};
}

template <class L, class S>
void WriteFloatsKernel(const KvSlot& slot) {
  auto* keys = static_cast<typename S::Element*>(slot.block);
  auto* values = keys + int64_t{slot.head_dim} * kAttentionBlock + slot.token * slot.head_dim;
  for (int d = 0; d < slot.head_dim; d += kLanes) {
    const int count = slot.head_dim - d < kLanes ? slot.head_dim - d : kLanes;
    typename S::Element key[kLanes], value[kLanes];
    S::Store(L::LoadPartial(slot.key + d, count), key);
    S::Store(L::LoadPartial(slot.value + d, count), value);
    for (int i = 0; i < count; ++i) {
      keys[(d + i) * kAttentionBlock + slot.token] = key[i];
      values[d + i] = value[i];
    }
  }
}

// |x| is at most 127 but for rounding.
inline int8_t RoundCode(float x) {
  return static_cast<int8_t>(__builtin_bit_cast(uint32_t, x + kRoundMagic) -
                             __builtin_bit_cast(uint32_t, kRoundMagic));
}

// Writes the codes of x, `stride` apart, and returns their scale.
inline float WriteCodes(const float* x, int head_dim, int8_t* codes, int stride) {
  uint32_t largest = 0;  // as integers magnitudes order like the numbers, NaN on top
  for (int d = 0; d < head_dim; ++d) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[d]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  const CodeScale by = ScaleFor(largest);
  for (int d = 0; d < head_dim; ++d) {
    codes[d * stride] = by.inverse == 0 ? int8_t{0} : RoundCode(x[d] * by.inverse);
  }
  return by.scale;
}

inline void WriteInt8Kernel(const KvSlot& slot) {
  auto* keys = static_cast<int8_t*>(slot.block);
  int8_t* values = keys + int64_t{slot.head_dim} * kAttentionBlock;
  auto* scales = reinterpret_cast<float*>(values + int64_t{slot.head_dim} * kAttentionBlock);
  scales[slot.token] = WriteCodes(slot.key, slot.head_dim, keys + slot.token, kAttentionBlock);
  scales[kAttentionBlock + slot.token] =
      WriteCodes(slot.value, slot.head_dim, values + slot.token * slot.head_dim, 1);
}

}  // namespace
}  // namespace sauva
