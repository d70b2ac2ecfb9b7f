#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/numerics.h"

// Int8 matmul: exact integer dot products per group of 32 columns, groups added in order
// in f32. 16 weight rows along the lanes. D has the integer dot products of a lane type L.
namespace sauva {
namespace {

constexpr int kPanelRows = kLanes;
constexpr int64_t kPanelGroupBytes = int64_t{kPanelRows} * kInt8Group;

template <class L, class D, int kPanels, int kTokens>
inline void Int8Registers(const Int8Tile& tile, int panel, int token) {
  constexpr int64_t kAhead = 2048;
  const int64_t groups = tile.x.groups;
  const int64_t panel_bytes = groups * kPanelGroupBytes;
  const uint8_t* w = tile.weight + panel * panel_bytes;
  const int8_t* codes = tile.x.codes + token * groups * kInt8Group;
  const float* scales = tile.x.scales + token * groups;
  const int32_t* offsets = tile.x.offsets + token * groups;
  L sum[kTokens][kPanels];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) sum[t][p] = L::Zero();
  }
  for (int64_t group = 0; group < groups; ++group) {
    typename D::Integers dot[kTokens][kPanels];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) dot[t][p] = D::SetInteger(offsets[t * groups + group]);
    }
    for (int quad = 0; quad < kInt8Group / 4; ++quad) {
      typename D::Bytes weight[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const uint8_t* at = w + p * panel_bytes + group * kPanelGroupBytes + quad * 64;
        weight[p] = D::LoadBytes(at);
        if constexpr (kTokens == 1) __builtin_prefetch(at + kAhead);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const auto x = D::LoadQuad(codes + (t * groups + group) * kInt8Group + quad * 4);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) dot[t][p] = D::DotQuads(dot[t][p], weight[p], x);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const L scale = L::Set(scales[t * groups + group]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        sum[t][p] = L::Fma(D::ToFloat(dot[t][p]), scale, sum[t][p]);
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const int row = (panel + p) * kPanelRows;
    const int64_t count = tile.rows - row;
    const L scale = L::Load(tile.weight_scales + row);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      L result = L::Multiply(sum[t][p], scale);
      if (tile.bias) result = L::Add(result, L::LoadPartial(tile.bias + row, count));
      result.StorePartial(tile.out + (token + t) * tile.out_stride + row, count);
    }
  }
}

template <class L, class D, int kPanels, int kTokens>
inline void Int8LastTokens(const Int8Tile& tile, int panel, int token, int count) {
  if constexpr (kTokens > 0) {
    if (count == kTokens) return Int8Registers<L, D, kPanels, kTokens>(tile, panel, token);
    Int8LastTokens<L, D, kPanels, kTokens - 1>(tile, panel, token, count);
  }
}

template <class L, class D, int kPanels>
inline void Int8Panels(const Int8Tile& tile, int panel) {
  int token = 0;
  for (; token + L::kPanelTokens <= tile.tokens; token += L::kPanelTokens) {
    Int8Registers<L, D, kPanels, L::kPanelTokens>(tile, panel, token);
  }
  Int8LastTokens<L, D, kPanels, L::kPanelTokens - 1>(tile, panel, token, tile.tokens - token);
}

template <class L, class D>
void Int8TileKernel(const Int8Tile& tile) {
  const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
  int panel = 0;
  if (tile.tokens == 1) {
    for (; panel + L::kSinglePanels <= panels; panel += L::kSinglePanels) {
      Int8Registers<L, D, L::kSinglePanels, 1>(tile, panel, 0);
    }
  }
  for (; panel + L::kPanels <= panels; panel += L::kPanels) {
    Int8Panels<L, D, L::kPanels>(tile, panel);
  }
  for (; panel < panels; ++panel) Int8Panels<L, D, 1>(tile, panel);
}

// One group of up to 32 numbers. Plain loops: the compiler makes vectors of them.
inline void QuantizeGroup(const float* x, int8_t* codes, float& scale, int32_t& offset) {
  uint32_t largest_bits = 0;  // magnitudes as integers: infinity and NaN are the largest
  for (int i = 0; i < kInt8Group; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffffu;
    largest_bits = bits > largest_bits ? bits : largest_bits;
  }
  const float largest = __builtin_bit_cast(float, largest_bits);
  const bool finite = largest_bits < 0x7f800000u;
  if (!finite || largest < kInt8SmallestMagnitude) {
    for (int i = 0; i < kInt8Group; ++i) codes[i] = 0;
    scale = finite ? 0.0f : __builtin_nanf("");
    offset = 0;
    return;
  }
  scale = largest / kInt8Max;
  const float inverse = kInt8Max / largest;
  int32_t sum = 0;
  for (int i = 0; i < kInt8Group; ++i) {
    const float shifted = x[i] * inverse + kRoundMagic;
    const int32_t code = static_cast<int32_t>(__builtin_bit_cast(uint32_t, shifted) -
                                              __builtin_bit_cast(uint32_t, kRoundMagic));
    codes[i] = static_cast<int8_t>(code);
    sum += code;
  }
  offset = -128 * sum;
}

inline void QuantizeKernel(const float* x, int64_t columns, int8_t* codes, float* scales,
                           int32_t* offsets) {
  int64_t group = 0;
  for (; (group + 1) * kInt8Group <= columns; ++group) {
    QuantizeGroup(x + group * kInt8Group, codes + group * kInt8Group, scales[group],
                  offsets[group]);
  }
  if (group * kInt8Group == columns) return;
  float last[kInt8Group] = {};
  for (int64_t i = group * kInt8Group; i < columns; ++i) last[i - group * kInt8Group] = x[i];
  QuantizeGroup(last, codes + group * kInt8Group, scales[group], offsets[group]);
}

}  // namespace
}  // namespace sauva
