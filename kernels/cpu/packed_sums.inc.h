#pragma once

#include <cstdint>

#include "kernels/cpu/packed.inc.h"

// The sums of tokens that are too many for registers: in memory, small enough for L1.
namespace sauva {
namespace {

// Of kPanels panels. States: [tokens, kFloats], of each token the sums of its outputs and those
// of the weight's group at hand.
template <class L, class D, CodeFormat kFormat, int kPanels>
struct PackedSums {
  static constexpr int kRows = kPanels * kPanelRows;
  static constexpr int kFloats = 2 * kRows;
  template <int kTokens>
  using Dots = PanelDots<L, D, kFormat, kTokens, kPanels>;

  static void Clear(float* state, int tokens) {
    for (int t = 0; t < tokens; ++t, state += kFloats) {
#pragma GCC unroll 4
      for (int row = 0; row < kRows; row += kPanelRows) {
        L::Zero().Store(state + row);
        L::Set(-0.0f).Store(state + kRows + row);
      }
    }
  }
  // An activation group that is the weight's; `by` has the weight's scales.
  template <int kTokens>
  static void AddWhole(const Dots<kTokens>& dots, const L (&by)[kPanels], const float* x_scales,
                       float* state) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const L x_scale = L::Set(x_scales[t]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        float* sum = state + t * kFloats + p * kPanelRows;
        const L inner = L::Multiply(L::ToFloat(dots.dot[t][p]), x_scale);
        L::Fma(inner, by[p], L::Load(sum)).Store(sum);
      }
    }
  }
  // One of several activation groups of a weight's group.
  template <int kTokens>
  static void AddPart(const Dots<kTokens>& dots, const float* x_scales, float* state) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const L x_scale = L::Set(x_scales[t]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        float* inner = state + t * kFloats + kRows + p * kPanelRows;
        L::Fma(L::ToFloat(dots.dot[t][p]), x_scale, L::Load(inner)).Store(inner);
      }
    }
  }
  template <int kTokens>
  static void EndGroup(const L (&by)[kPanels], float* state) {
    for (int t = 0; t < kTokens; ++t, state += kFloats) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        float* sum = state + p * kPanelRows;
        L::Fma(L::Load(sum + kRows), by[p], L::Load(sum)).Store(sum);
        L::Set(-0.0f).Store(sum + kRows);
      }
    }
  }
  // Panels from `panel` on, those of them that the tile has.
  static void StoreOutputs(const PackedTile& tile, int panel, TokenRange tokens,
                           const float* states) {
    const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
    for (int p = 0; p < kPanels && panel + p < panels; ++p) {
      const float* sums = states + p * kPanelRows;
      for (int t = 0; t < tokens.count; ++t, sums += kFloats) {
        StoreOutput(tile, tokens.first + t, panel + p, L::Load(sums));
      }
    }
  }
};

}  // namespace
}  // namespace sauva
