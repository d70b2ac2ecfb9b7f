#pragma once

#include <cstdint>

#include "kernels/cpu/packed.inc.h"
#include "kernels/cpu/packed_sums.inc.h"

// Quantized matmul of more than a few tokens, where two quads at a time are unpacked into
// registers: as in packed_stream.inc.h, but panel by panel, for so many tokens that their sums stay
// in L1. Where there are more, each register tile of them unpacks a panel anew, which L2 holds.
namespace sauva {
namespace {

// Bytes of a panel: products take longer than reading, so what is read must be asked for early.
constexpr int64_t kBatchReadAhead = 2048;

template <class L, class D, CodeFormat kFormat, int kTokens>
struct PackedBatch {
  using Dots = PanelDots<L, D, kFormat, kTokens, 1>;
  using Sums = PackedSums<L, D, kFormat, 1>;

  const PackedTile& tile;
  Activations x;
  const uint8_t* stream;  // the panel's next unit
  float* const states;    // [kTokens, Sums::kFloats]

  PackedBatch(const PackedTile& packed_tile, int panel, int token)
      : tile(packed_tile),
        x(packed_tile, token, 0),
        stream(packed_tile.weight.data + panel * packed_tile.weight.panel_bytes),
        states(reinterpret_cast<float*>(packed_tile.scratch)) {}

  // One plane of `units` units from the stream on.
  template <int kPlane>
  void Dot(Dots& dots, int64_t units) const {
    constexpr int64_t kBytes = UnitBytes(kFormat) / kPairs;
    const uint8_t* from = stream;
    const int8_t* codes = x.codes;
    do {  // at least one unit, which compilers need not test
#pragma GCC unroll 4
      for (int pair = 0; pair < kPairs; ++pair) {
        alignas(64) uint8_t bytes[PlanesOf(kFormat) * kPairSize];
        if (kPlane == 0) PrefetchLines<kBytes>(from + pair * kBytes + kBatchReadAhead);
        UnpackPair<D, kFormat>(from, pair, bytes, kPairSize);
        dots.template Add<2>(bytes + kPlane * kPairSize, codes + pair * (kUnitColumns / kPairs));
      }
      from += UnitBytes(kFormat);
      codes += x.stride * kUnitColumns;
    } while (--units > 0);
  }

  // The next weight group, of `units` units.
  void AddWeightGroup(int64_t units, bool whole) {
    const uint8_t* tail = stream + units * UnitBytes(kFormat);
    const uint8_t* zeros[] = {tail + ScaleBytes(tile.weight)};
    const L by[] = {LoadScales<L, kFormat>(tile.weight, tail)};
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
      stream += count * UnitBytes(kFormat);
      x.codes += count * x.stride * kUnitColumns;
      x.NextGroup();
    }
    if (!whole) Sums::template EndGroup<kTokens>(by, states);
    stream += GroupTailBytes(tile.weight);
  }

  // By itself: several register tiles in one function are slower.
  [[gnu::noinline]] void Run() {
    const PackedPanels& weight = tile.weight;
    const bool whole = weight.units_per_group <= weight.activation_units;
    Sums::Clear(states, kTokens);
    for (int64_t unit = 0; unit < weight.units; unit += weight.units_per_group) {
      AddWeightGroup(Least(weight.units - unit, weight.units_per_group), whole);
    }
  }
};

// A register tile of at most kMost tokens; an odd number of them has one place to spare.
template <class L, class D, CodeFormat kFormat, int kMost>
inline void BatchSome(const PackedTile& tile, int panel, TokenRange tokens) {
  if constexpr (kMost > 0) {
    if (tokens.count > kMost - kBatchStep) {
      PackedBatch<L, D, kFormat, kMost> batch(tile, panel, tokens.first);
      batch.Run();
      return PackedSums<L, D, kFormat, 1>::StoreOutputs(tile, panel, tokens, batch.states);
    }
    BatchSome<L, D, kFormat, kMost - kBatchStep>(tile, panel, tokens);
  }
}

template <class L, class D, CodeFormat kFormat>
inline void BatchTile(const PackedTile& tile) {
  const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
  const auto step = static_cast<int>(tile.x.stride);
  for (int panel = 0; panel < panels; ++panel) {
    for (int token = 0; token < tile.tokens; token += step) {
      const TokenRange tokens{token, static_cast<int>(Least(step, tile.tokens - token))};
      BatchSome<L, D, kFormat, D::kPanelTokens>(tile, panel, tokens);
    }
  }
}

}  // namespace
}  // namespace sauva
