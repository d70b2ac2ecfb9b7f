#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/storage.inc.h"
#include "kernels/numerics.h"

// Float matmul as dot products: 16 lanes along the columns, several rows and tokens at a
// time. The order of each sum depends on the number of columns alone.
namespace sauva {
namespace {

// One register tile: kRows weight rows times kTokens tokens, from row and token on.
template <class L, class S, int kRows, int kTokens>
inline void DotRegisters(const DotTile& tile, int row, int token) {
  using Element = typename S::Element;
  constexpr int64_t kAhead = 1024 / sizeof(Element);  // of the stream of weights
  // From there to what is read ahead: in the same rows, at their end in those after them.
  const int64_t turn = tile.columns - kAhead;
  const int64_t ahead_after_turn = kRows * tile.weight_stride - turn;
  const Element* w = static_cast<const Element*>(tile.weight) + row * tile.weight_stride;
  const float* x = tile.x + token * tile.x_stride;
  L sum[kTokens][kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[t][r] = L::Zero();
  }
  const bool first = token == 0;  // then the weights come from memory
  const auto step = [&](int64_t k, auto load) __attribute__((always_inline)) {
    L weight[kRows];
    const Element* ahead = w + k + (k < turn ? kAhead : ahead_after_turn);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      weight[r] = S::Load(w + r * tile.weight_stride + k);
      if (first) __builtin_prefetch(ahead + r * tile.weight_stride, 0, 2);  // to L2
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const L value = load(x + t * tile.x_stride + k);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sum[t][r] = L::Fma(weight[r], value, sum[t][r]);
    }
  };
  const int64_t whole = tile.columns / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    step(
        k, [](const float* p) __attribute__((always_inline)) { return L::Load(p); });
  }
  if (whole < tile.columns) {  // weights end in -0: -0 times +0 changes no sum
    const int64_t rest = tile.columns - whole;
    step(whole, [rest](const float* p) { return L::LoadPartial(p, rest); });
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    float* out = tile.out + (token + t) * tile.out_stride + row;
    float result[kRows];
    if constexpr (kRows % 4 == 0) {
#pragma GCC unroll 2
      for (int r = 0; r < kRows; r += 4) L::Sum4(sum[t] + r, result + r);
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) result[r] = L::Sum(sum[t][r]);
    }
    for (int r = 0; r < kRows; ++r) {
      out[r] = tile.bias ? result[r] + tile.bias[row + r] : result[r];
    }
  }
}

// The last `count` tokens of a tile, count <= kTokens.
template <class L, class S, int kRows, int kTokens>
inline void DotLastTokens(const DotTile& tile, int row, int token, int count) {
  if constexpr (kTokens > 0) {
    if (count == kTokens) return DotRegisters<L, S, kRows, kTokens>(tile, row, token);
    DotLastTokens<L, S, kRows, kTokens - 1>(tile, row, token, count);
  }
}

template <class L, class S, int kRows>
inline void DotRowsOfTile(const DotTile& tile, int row) {
  int token = 0;
  for (; token + L::kTokens <= tile.tokens; token += L::kTokens) {
    DotRegisters<L, S, kRows, L::kTokens>(tile, row, token);
  }
  DotLastTokens<L, S, kRows, L::kTokens - 1>(tile, row, token, tile.tokens - token);
}

template <class L, class S>
void DotTileKernel(const DotTile& tile) {
  int row = 0;
  if (tile.tokens == 1) {
    for (; row + L::kSingleRows <= tile.rows; row += L::kSingleRows) {
      DotRegisters<L, S, L::kSingleRows, 1>(tile, row, 0);
    }
  }
  for (; row + L::kRows <= tile.rows; row += L::kRows) DotRowsOfTile<L, S, L::kRows>(tile, row);
  for (; row < tile.rows; ++row) DotRowsOfTile<L, S, 1>(tile, row);
}

}  // namespace
}  // namespace sauva
