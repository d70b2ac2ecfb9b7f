#pragma once

#include <cstdint>

#include "kernels/cpu/packed.inc.h"

// Quantized matmul of few tokens: each unit is unpacked as it comes from memory and meets all
// of them, several panels side by side.
namespace sauva {
namespace {

constexpr int64_t kStreamReadAhead = 1024;  // bytes of each panel

template <class L, class D, CodeFormat kFormat, int kTokens, int kPanels>
struct PackedStream {
  using Dots = PanelDots<L, D, kFormat, kTokens, kPanels>;

  const PackedTile& tile;
  const int panel;
  Activations x;
  const uint8_t* streams[kPanels];  // the next unit of each panel
  // From there to what is read ahead: in the same panels, at their end in those after them.
  int64_t ahead = kStreamReadAhead;
  L sum[kTokens][kPanels];
  L inner[kTokens][kPanels];

  PackedStream(const PackedTile& packed_tile, int first_panel)
      : tile(packed_tile), panel(first_panel), x(packed_tile, 0, 0) {
    for (int p = 0; p < kPanels; ++p) {
      streams[p] = tile.weight.data + (panel + p) * tile.weight.panel_bytes;
    }
  }

  // The next unit of every panel; `high` has NF4's high plane.
  void AddUnit(Dots& high, Dots& low) {
#pragma GCC unroll 4
    for (int pair = 0; pair < kPairs; ++pair) AddPair(pair, high, low);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) streams[p] += UnitBytes(kFormat);
    x.NextUnit();
  }

  // Two quads of every panel, which stay in registers. Reading ahead little by little keeps it
  // out of the way of what is read now.
  void AddPair(int pair, Dots& high, Dots& low) {
    constexpr int64_t kBytes = UnitBytes(kFormat) / kPairs;
    constexpr int64_t kPlane = int64_t{kPanels} * kPairSize;
    alignas(64) uint8_t bytes[PlanesOf(kFormat) * kPlane];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      PrefetchLines<kBytes, kToL2>(streams[p] + pair * kBytes + ahead);
      UnpackPair<D, kFormat>(streams[p], pair, bytes + p * kPairSize, kPlane);
    }
    const int8_t* codes = x.codes + pair * (kUnitColumns / kPairs);
    if (kFormat == CodeFormat::kNf4) high.template Add<2>(bytes + kPlane, codes);
    low.template Add<2>(bytes, codes);
  }

  // The next activation group, of `units` units.
  void AddGroup(int64_t units, const uint8_t* const zeros[kPanels]) {
    constexpr bool kTwoPlanes = kFormat == CodeFormat::kNf4;
    Dots low, high;
    (kTwoPlanes ? high : low).Start(tile.weight, zeros, x.starts);
    if (kTwoPlanes) low.Clear();
    for (int64_t u = 0; u < units; ++u) AddUnit(high, low);
    if constexpr (kTwoPlanes) high.Times256();
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const L scale = L::Set(x.scales[t]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        auto dot = low.dot[t][p];
        if constexpr (kTwoPlanes) dot = L::Add(dot, high.dot[t][p]);
        inner[t][p] = L::Fma(L::ToFloat(dot), scale, inner[t][p]);
      }
    }
    x.NextGroup();
  }

  // The next weight group, of `units` units.
  void AddWeightGroup(int64_t units) {
    const uint8_t* end = tile.weight.data + (panel + 1) * tile.weight.panel_bytes;
    if (streams[0] + kStreamReadAhead >= end) {
      ahead = kStreamReadAhead + (kPanels - 1) * tile.weight.panel_bytes;
    }
    const uint8_t* tails[kPanels];
    const uint8_t* zeros[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      tails[p] = streams[p] + units * UnitBytes(kFormat);
      zeros[p] = tails[p] + ScaleBytes(tile.weight);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) inner[t][p] = L::Set(-0.0f);
    }
    for (int64_t u = 0; u < units; u += x.group_units) {
      AddGroup(Least(units - u, x.group_units), zeros);
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const L scale = LoadScales<L, kFormat>(tile.weight, tails[p]);
      streams[p] += GroupTailBytes(tile.weight);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) sum[t][p] = L::Fma(inner[t][p], scale, sum[t][p]);
    }
  }

  void Run() {
    const PackedPanels& weight = tile.weight;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sum[t][p] = L::Zero();
    }
    for (int64_t unit = 0; unit < weight.units; unit += weight.units_per_group) {
      AddWeightGroup(Least(weight.units - unit, weight.units_per_group));
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) StoreOutput(tile, t, panel + p, sum[t][p]);
    }
  }
};

// At most kMost tokens.
template <class L, class D, CodeFormat kFormat, int kMost>
inline void StreamSome(const PackedTile& tile) {
  if constexpr (kMost > 0) {
    if (tile.tokens == kMost) {
      return ForEachPanel<D::StreamPanels(kMost, PlanesOf(kFormat))>(
          tile, [&]<int kPanels>(int panel) {
            PackedStream<L, D, kFormat, kMost, kPanels>(tile, panel).Run();
          });
    }
    StreamSome<L, D, kFormat, kMost - 1>(tile);
  }
}

}  // namespace
}  // namespace sauva
