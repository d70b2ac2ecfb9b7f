#pragma once

#include <cstdint>

#include "kernels/cpu/packed.inc.h"
#include "kernels/cpu/packed_sums.inc.h"

// Quantized matmul of many tokens: a piece of L::kPanels panels is unpacked once into L1 and
// meets all tokens there, a register tile of them at a time.
namespace sauva {
namespace {

constexpr int64_t kPieceReadAhead = 1536;

// A piece of kPanels panels in scratch, and the sums of every token so far. Where fewer panels
// are left, the last one stands in for those that are missing.
template <class L, class D, CodeFormat kFormat>
struct Piece {
  static constexpr int kPanels = L::kPanels;
  using Shape = UnitShape<kFormat, kPanels>;
  static constexpr int64_t kMostUnits = kPackedPieceUnits / PlanesOf(kFormat);
  static constexpr int64_t kMostParts = 4;  // register tiles that prefetch the next piece
  using Sums = PackedSums<L, D, kFormat, kPanels>;
  static constexpr int kRows = kPanels * kPanelRows;

  const PackedTile& tile;
  const int panel;
  const int panels;            // of the tile
  int64_t first = 0, end = 0;  // units

  uint8_t* const bytes;  // [units, plane, panel, 512]
  float* const scales;   // [groups, kRows]
  uint8_t* const zeros;  // [groups, kRows]
  float* const states;   // [tokens, Sums::kFloats]

  // Where the next unit to unpack of each panel is.
  const uint8_t* streams[kPanels];

  // What a register tile prefetches of each panel's next piece: so many bytes with each unit.
  const uint8_t* ahead[kPanels] = {};
  int64_t ahead_bytes = 0;

  Piece(const PackedTile& packed_tile, int first_panel)
      : tile(packed_tile),
        panel(first_panel),
        panels((packed_tile.rows + kPanelRows - 1) / kPanelRows),
        bytes(packed_tile.scratch),
        scales(reinterpret_cast<float*>(bytes + kPackedPieceUnits * kPanels * kUnitSize)),
        zeros(reinterpret_cast<uint8_t*>(scales + kPackedPieceUnits * kRows)),
        states(reinterpret_cast<float*>(zeros + kPackedPieceUnits * kRows)) {
    for (int p = 0; p < kPanels; ++p) {
      const int64_t index = Least(panel + p, panels - 1);
      streams[p] = tile.weight.data + index * tile.weight.panel_bytes;
    }
  }

  int64_t UntilGroupEnds() const {
    return tile.weight.units_per_group - first % tile.weight.units_per_group;
  }

  // Takes the scales and zero points that stand where the streams are.
  void TakeTails(float* scale, uint8_t* zero) {
    const PackedPanels& weight = tile.weight;
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      LoadScales<L, kFormat>(weight, streams[p]).Store(scale + p * kPanelRows);
      if (weight.zeros) {
        __builtin_memcpy(zero + p * kPanelRows, streams[p] + ScaleBytes(weight), kPanelRows);
      }
      streams[p] += GroupTailBytes(weight);
    }
  }
  void Unpack() {
    const PackedPanels& weight = tile.weight;
    int64_t until_group_ends = UntilGroupEnds();
    uint8_t* to = bytes;
    float* scale = scales;
    uint8_t* zero = zeros;
    for (int64_t unit = first; unit < end; ++unit, to += Shape::kStride) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        PrefetchLines<UnitBytes(kFormat)>(streams[p] + kPieceReadAhead);
        UnpackUnit<D, kFormat>(streams[p], to + p * kUnitSize, Shape::kPlaneStride);
        streams[p] += UnitBytes(kFormat);
      }
      if (--until_group_ends > 0 && unit + 1 < weight.units) continue;
      TakeTails(scale, zero);
      until_group_ends = weight.units_per_group;
      scale += kRows;
      zero += kRows;
    }
    if (weight.zeros && until_group_ends < weight.units_per_group) {
      TakeZerosAhead(zero, until_group_ends);
    }
  }
  // Zero points of a group that goes on after this piece.
  void TakeZerosAhead(uint8_t* zero, int64_t until_group_ends) const {
    const int64_t units = Least(until_group_ends, tile.weight.units - end);
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* tail = streams[p] + units * UnitBytes(kFormat);
      __builtin_memcpy(zero + p * kPanelRows, tail + ScaleBytes(tile.weight), kPanelRows);
    }
  }

  // Dot products of an activation group of `units` units.
  template <int kTokens>
  void Dot(PanelDots<L, D, kFormat, kTokens, kPanels>& dots, const uint8_t* from, int64_t units,
           const Activations& x) const {
    const int64_t x_stride = x.stride * kUnitColumns;
    if constexpr (kFormat == CodeFormat::kNf4) {
      for (int64_t u = 0; u < units; ++u) {
        dots.Add(from + u * Shape::kStride + Shape::kPlaneStride, x.codes + u * x_stride);
      }
      dots.Times256();
    }
    const int8_t* codes = x.codes;
    do {  // at least one unit, which compilers need not test
      PrefetchLines<kTokens * kUnitColumns>(codes + tile.weight.units * x_stride);  // next tile
      dots.Add(from, codes);
      from += Shape::kStride;
      codes += x_stride;
    } while (--units > 0);
  }
  // Leaves part `part` of `parts` of the next piece to the next register tile.
  void LookAhead(int64_t part, int64_t parts) {
    const PackedPanels& weight = tile.weight;
    const int64_t all = weight.panel_bytes / weight.units + 1;  // of a unit with its share of tails
    ahead_bytes = part < parts ? all / parts + 1 : 0;
    const int64_t skipped = end == weight.units ? (kPanels - 1) * weight.panel_bytes : 0;
    for (int p = 0; p < kPanels; ++p) {
      ahead[p] = streams[p] + skipped + part * kMostUnits * ahead_bytes;
    }
  }
  void PrefetchAhead(int64_t unit, int64_t units) const {
    for (int64_t b = unit * ahead_bytes; b < (unit + units) * ahead_bytes; b += 64) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) __builtin_prefetch(ahead[p] + b, 0, 2);
    }
  }

  // The units of this piece for kTokens tokens.
  template <int kTokens>
  void Multiply(int token) const {
    const PackedPanels& weight = tile.weight;
    const bool whole = weight.units_per_group <= weight.activation_units;
    Activations x(tile, token, first);
    float* state = states + int64_t{token} * Sums::kFloats;
    int64_t until_group_ends = UntilGroupEnds();
    const float* scale = scales;
    const uint8_t* zero = zeros;
    for (int64_t unit = first; unit < end; unit += x.group_units) {
      const int64_t units = Least(Least(end - unit, x.group_units), until_group_ends);
      const uint8_t* panel_zeros[kPanels];
      for (int p = 0; p < kPanels; ++p) panel_zeros[p] = zero + p * kPanelRows;
      PanelDots<L, D, kFormat, kTokens, kPanels> dots;
      PrefetchAhead(unit - first, units);
      dots.Start(weight, panel_zeros, x.starts);
      Dot<kTokens>(dots, bytes + (unit - first) * Shape::kStride, units, x);
      x.codes += units * x.stride * kUnitColumns;
      until_group_ends -= units;
      const bool group_ends = until_group_ends == 0 || unit + units == weight.units;
      L by[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) by[p] = L::Load(scale + p * kPanelRows);
      if (whole) {
        Sums::template AddWhole<kTokens>(dots, by, x.scales, state);
      } else {
        Sums::template AddPart<kTokens>(dots, x.scales, state);
        if (group_ends) Sums::template EndGroup<kTokens>(by, state);
      }
      x.NextGroup();
      if (!group_ends) continue;
      scale += kRows;
      zero += kRows;
      until_group_ends = weight.units_per_group;
    }
  }

  // `count` tokens, 1 <= count <= kTokens.
  template <int kTokens>
  void MultiplySome(int token, int64_t count) const {
    if constexpr (kTokens > 0) {
      if (count == kTokens) return Multiply<kTokens>(token);
      MultiplySome<kTokens - 1>(token, count);
    }
  }

  void Run() {
    Sums::Clear(states, tile.tokens);
    const int64_t units = tile.weight.units;
    for (first = 0; first < units; first = end) {
      end = Least(first + kMostUnits, units);
      Unpack();
      const auto step = static_cast<int>(tile.x.stride);
      const int64_t parts = Least((tile.tokens + step - 1) / step, kMostParts);
      for (int token = 0; token < tile.tokens; token += step) {
        LookAhead(token / step, parts);
        MultiplySome<D::kPanelTokens>(token, Least(step, tile.tokens - token));
      }
    }
    Sums::StoreOutputs(tile, panel, {0, tile.tokens}, states);
  }
};

template <class L, class D, CodeFormat kFormat>
inline void PieceTile(const PackedTile& tile) {
  const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
  for (int panel = 0; panel < panels; panel += L::kPanels) {
    Piece<L, D, kFormat>(tile, panel).Run();
  }
}

}  // namespace
}  // namespace sauva
