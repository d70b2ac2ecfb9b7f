#pragma once

#include <cstdint>

#include "kernels/cpu/packed.inc.h"
#include "kernels/cpu/packed_sums.inc.h"

// Quantized matmul of more than a few tokens, where two quads at a time are unpacked into
// registers: as in packed_stream.inc.h, but for so many tokens that their sums stay in L1. Where
// there are more, each register tile of them unpacks a panel anew, which L2 holds.
namespace sauva {
namespace {

// Bytes of a panel: products take longer than reading, so what is read must be asked for early.
constexpr int64_t kBatchReadAhead = 2048;

template <class L, class D, CodeFormat kFormat, int kTokens, int kPanels>
struct PackedBatch {
  using Dots = PanelDots<L, D, kFormat, kTokens, kPanels>;
  using Sums = PackedSums<L, D, kFormat, kPanels>;

  const PackedTile& tile;
  Activations x;
  const uint8_t* streams[kPanels];  // the next unit of each panel
  float* const states;              // [kTokens, Sums::kFloats]

  PackedBatch(const PackedTile& packed_tile, int panel, int token)
      : tile(packed_tile),
        x(packed_tile, token, 0),
        states(reinterpret_cast<float*>(packed_tile.scratch)) {
    for (int p = 0; p < kPanels; ++p) {
      streams[p] = tile.weight.data + (panel + p) * tile.weight.panel_bytes;
    }
  }

  // One plane of `units` units from the streams on.
  template <int kPlane>
  void Dot(Dots& dots, int64_t units) const {
    constexpr int64_t kBytes = UnitBytes(kFormat) / kPairs;
    constexpr int64_t kPlaneSize = int64_t{kPanels} * kPairSize;
    const uint8_t* from[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) from[p] = streams[p];
    const int8_t* codes = x.codes;
    do {  // at least one unit, which compilers need not test
#pragma GCC unroll 4
      for (int pair = 0; pair < kPairs; ++pair) {
        alignas(64) uint8_t bytes[PlanesOf(kFormat) * kPlaneSize];
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          if (kPlane == 0) PrefetchLines<kBytes>(from[p] + pair * kBytes + kBatchReadAhead);
          UnpackPair<D, kFormat>(from[p], pair, bytes + p * kPairSize, kPlaneSize);
        }
        dots.template Add<2>(bytes + kPlane * kPlaneSize, codes + pair * (kUnitColumns / kPairs));
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) from[p] += UnitBytes(kFormat);
      codes += x.stride * kUnitColumns;
    } while (--units > 0);
  }

  // The next weight group, of `units` units.
  void AddWeightGroup(int64_t units, bool whole) {
    const uint8_t* zeros[kPanels];
    L by[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* tail = streams[p] + units * UnitBytes(kFormat);
      zeros[p] = tail + ScaleBytes(tile.weight);
      by[p] = LoadScales<L, kFormat>(tile.weight, tail);
    }
    for (int64_t u = 0; u < units; u += x.group_units) {
      const int64_t count = Least(units - u, x.group_units);
      Dots dots;
      dots.Start(tile.weight, zeros, x.starts);
      if constexpr (kFormat == CodeFormat::kNf4) {
        Dot<1>(dots, count);
        dots.Times256();
      }
      Dot<0>(dots, count);
      // A compiler that knew where the sums are would keep copies and run out of registers.
      float* state = states;
      __asm__("" : "+r"(state));
      if (whole) {
        Sums::template AddWhole<kTokens>(dots, by, x.scales, state);
      } else {
        Sums::template AddPart<kTokens>(dots, x.scales, state);
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) streams[p] += count * UnitBytes(kFormat);
      x.codes += count * x.stride * kUnitColumns;
      x.NextGroup();
    }
    if (!whole) Sums::template EndGroup<kTokens>(by, states);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) streams[p] += GroupTailBytes(tile.weight);
  }

  void Run() {
    const PackedPanels& weight = tile.weight;
    const bool whole = weight.units_per_group <= weight.activation_units;
    Sums::Clear(states, kTokens);
    for (int64_t unit = 0; unit < weight.units; unit += weight.units_per_group) {
      AddWeightGroup(Least(weight.units - unit, weight.units_per_group), whole);
    }
  }
};

// A register tile of at most kMost tokens; an odd number of them has one place to spare.
template <class L, class D, CodeFormat kFormat, int kMost, int kPanels>
inline void BatchSome(const PackedTile& tile, int panel, TokenRange tokens) {
  if constexpr (kMost > 0) {
    if (tokens.count > kMost - kBatchStep) {
      PackedBatch<L, D, kFormat, kMost, kPanels> batch(tile, panel, tokens.first);
      batch.Run();
      return PackedSums<L, D, kFormat, kPanels>::StoreOutputs(tile, panel, tokens, batch.states);
    }
    BatchSome<L, D, kFormat, kMost - kBatchStep, kPanels>(tile, panel, tokens);
  }
}

// Up to kMostTokens tokens at a time, with kMostPanels panels.
template <class L, class D, CodeFormat kFormat, int kMostTokens, int kMostPanels>
inline void Batches(const PackedTile& tile) {
  const auto step = static_cast<int>(tile.x.stride);
  ForEachPanel<kMostPanels>(tile, [&]<int kPanels>(int panel) {
    for (int token = 0; token < tile.tokens; token += step) {
      const TokenRange tokens{token, static_cast<int>(Least(step, tile.tokens - token))};
      BatchSome<L, D, kFormat, kMostTokens, kPanels>(tile, panel, tokens);
    }
  });
}

// Panels side by side share the loads of activations; where one register tile has all tokens,
// reading the weights once is worth more.
template <class L, class D, CodeFormat kFormat>
inline void BatchTile(const PackedTile& tile) {
  if (tile.x.stride > D::kPanelTokens) {
    Batches<L, D, kFormat, kMostTileTokens, 1>(tile);
  } else {
    Batches<L, D, kFormat, D::kPanelTokens, 2>(tile);
  }
}

}  // namespace
}  // namespace sauva
