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

// A block as f32, rows of values padded to whole lanes.
struct FloatBlock {
  const float* keys;    // [head_dim, 16]
  const float* values;  // [16, padded]
};

// Where a block is widened to.
struct BlockScratch {
  float* keys;    // [head_dim, 16]
  float* values;  // [16, padded]
  int head_dim;
  int padded;  // head_dim in whole lanes
};

template <class L>
struct StoredF32 {
  static FloatBlock Read(const unsigned char* block, const BlockScratch& to) {
    const auto* keys = reinterpret_cast<const float*>(block);
    const float* values = keys + to.head_dim * kAttentionBlock;
    if (to.padded == to.head_dim) return {keys, values};
    for (int j = 0; j < kAttentionBlock; ++j) {
      for (int d = 0; d < to.padded; d += kLanes) {
        L::LoadPartial(values + j * to.head_dim + d, to.head_dim - d)
            .Store(to.values + j * to.padded + d);
      }
    }
    return {keys, to.values};
  }
};

template <class L>
struct StoredF16 {
  static FloatBlock Read(const unsigned char* block, const BlockScratch& to) {
    const auto* keys = reinterpret_cast<const uint16_t*>(block);
    const uint16_t* values = keys + to.head_dim * kAttentionBlock;
    for (int d = 0; d < to.head_dim; ++d) {
      L::LoadHalf(keys + d * kLanes).Store(to.keys + d * kLanes);
    }
    for (int j = 0; j < kAttentionBlock; ++j) {
      const uint16_t* from = values + j * to.head_dim;
      float* row = to.values + j * to.padded;
      int d = 0;
      for (; d + kLanes <= to.head_dim; d += kLanes) L::LoadHalf(from + d).Store(row + d);
      if (d < to.head_dim) L::LoadHalfPartial(from + d, to.head_dim - d).Store(row + d);
    }
    return {to.keys, to.values};
  }
};

template <class L>
struct StoredInt8 {
  static FloatBlock Read(const unsigned char* block, const BlockScratch& to) {
    const auto* keys = reinterpret_cast<const int8_t*>(block);
    const int8_t* values = keys + to.head_dim * kAttentionBlock;
    const auto* scales = reinterpret_cast<const float*>(values + to.head_dim * kAttentionBlock);
    const L key_scales = L::Load(scales);
    for (int d = 0; d < to.head_dim; ++d) {
      L::Multiply(L::LoadInt8(keys + d * kLanes), key_scales).Store(to.keys + d * kLanes);
    }
    for (int j = 0; j < kAttentionBlock; ++j) {
      const L scale = L::Set(scales[kAttentionBlock + j]);
      const int8_t* from = values + j * to.head_dim;
      float* row = to.values + j * to.padded;
      int d = 0;
      for (; d + kLanes <= to.head_dim; d += kLanes) {
        L::Multiply(L::LoadInt8(from + d), scale).Store(row + d);
      }
      for (; d < to.head_dim; ++d)
        row[d] = static_cast<float>(from[d]) * scales[kAttentionBlock + j];
    }
    return {to.keys, to.values};
  }
};

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
