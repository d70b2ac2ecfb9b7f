#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.inc.h"
#include "kernels/cpu/unpack.inc.h"
#include "kernels/numerics.h"

// Quantized matmul: exact integer dot products per unit of 32 columns, units added in order
// in f32 to their group and groups to the output. 16 weight rows along the lanes. D has the
// integer dot products of a lane type L. Few tokens: each unit is unpacked as it comes from
// memory, several panels side by side. Many: a piece of two panels is unpacked once into L1
// and meets all tokens there.
namespace sauva {
namespace {

constexpr int64_t kPrefetchAhead = 1536;

// Consecutive units of kPanels panels, unpacked: [unit, plane, panel, 512 bytes] and
// [group, panel, 16] f32 scales.
template <CodeFormat kFormat, int kPanels>
struct PieceShape {
  static constexpr int64_t kPlaneStride = int64_t{kPanels} * kUnitSize;
  static constexpr int64_t kUnitStride = PlanesOf(kFormat) * kPlaneStride;
  static constexpr int kScaleStride = kPanels * kPanelRows;
};

template <class L, CodeFormat kFormat>
inline L LoadScales(const PackedPanels& panels, const uint8_t* at) {
  L scales;
  if (panels.half_scales) {
    uint16_t halves[kPanelRows];
    __builtin_memcpy(halves, at, sizeof halves);
    scales = L::LoadHalf(halves);
  } else {
    float floats[kPanelRows];
    __builtin_memcpy(floats, at, sizeof floats);
    scales = L::Load(floats);
  }
  if constexpr (kFormat != CodeFormat::kNf4) return scales;
  return L::Multiply(scales, L::Set(kNf4FixedStep));
}

// Dot products of kTokens tokens with a unit of kPanels panels, exact, as floats.
template <class L, class D, CodeFormat kFormat, int kTokens, int kPanels>
struct UnitDots {
  using Shape = PieceShape<kFormat, kPanels>;

  typename D::Integers dot[kTokens][kPanels];

  void Start(const int32_t* starts) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const auto start = D::SetInteger(starts[t]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) dot[t][p] = start;
    }
  }
  // x: [kTokens, 32] codes.
  void Compute(const uint8_t* bytes, const int8_t* x, const int32_t* starts) {
    Start(starts);
    if constexpr (IsSmall(kFormat)) {
      D::template DotSmall<kTokens, kPanels>(dot, bytes, x);
      return;
    }
    if constexpr (kFormat == CodeFormat::kNf4) {
      D::template DotWide<kTokens, kPanels>(dot, bytes + Shape::kPlaneStride, x);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) dot[t][p] = L::Times256(dot[t][p]);
      }
    }
    D::template DotWide<kTokens, kPanels>(dot, bytes, x);
  }
  // What 8-bit codes whose zero points are not the middle still lack.
  void Correct(const PackedPanels& panels, const uint8_t* const tails[kPanels],
               const int32_t* sums) {
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* zeros = tails[p] + ScaleBytes(panels);
      int32_t factors[kPanelRows];
      for (int r = 0; r < kPanelRows; ++r) factors[r] = zeros[r] - MiddleZero(kFormat);
      for (int t = 0; t < kTokens; ++t) {
        dot[t][p] = L::SubtractProduct(dot[t][p], factors, sums[t]);
      }
    }
  }
};

// The activations of one unit, from some token on.
struct Activations {
  Activations(const Int8Activations& all, int token, int64_t unit)
      : stride(all.stride),
        codes(all.codes + (unit * stride + token) * kUnitColumns),
        scales(all.scales + unit * stride + token),
        sums(all.sums + unit * stride + token),
        starts(all.starts + unit * stride + token) {}
  void Advance() {
    codes += stride * kUnitColumns;
    scales += stride;
    sums += stride;
    starts += stride;
  }
  const int64_t stride;
  const int8_t* codes;
  const float* scales;
  const int32_t* sums;
  const int32_t* starts;
};

// Where a register tile begins.
struct TileStart {
  int panel = 0;
  int token = 0;
};

template <class L, int kTokens, int kPanels>
inline void StoreOutputs(const PackedTile& tile, TileStart at, const float* sums) {
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const int row = (at.panel + p) * kPanelRows;
    const int64_t rows = tile.rows - row;
    for (int t = 0; t < kTokens; ++t) {
      L result = L::Load(sums + (t * kPanels + p) * kLanes);
      if (tile.bias) result = L::Add(result, L::LoadPartial(tile.bias + row, rows));
      result.StorePartial(tile.out + (at.token + t) * tile.out_stride + row, rows);
    }
  }
}

// All units of one register tile, each unpacked as it is met.
template <class L, class D, CodeFormat kFormat, int kTokens, int kPanels>
inline void StreamRegisters(const PackedTile& tile, TileStart at) {
  using Shape = PieceShape<kFormat, kPanels>;
  const PackedPanels& panels = tile.weight;
  const int64_t units = panels.units;
  const uint8_t* streams[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    streams[p] = panels.data + (at.panel + p) * panels.panel_bytes;
  }
  L sum[kTokens][kPanels];
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) sum[t][p] = L::Zero();
  }
  Activations x(tile.x, at.token, 0);
  for (int64_t first = 0; first < units; first += panels.units_per_group) {
    const int64_t left = units - first;
    const int64_t count = left < panels.units_per_group ? left : panels.units_per_group;
    L inner[kTokens][kPanels];
    const uint8_t* tails[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      tails[p] = streams[p] + count * UnitBytes(kFormat);
      for (int t = 0; t < kTokens; ++t) inner[t][p] = L::Zero();
    }
    for (int64_t i = 0; i < count; ++i) {
      alignas(64) uint8_t bytes[Shape::kUnitStride];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        for (int64_t b = 0; b < UnitBytes(kFormat); b += 64) {
          __builtin_prefetch(streams[p] + b + kPrefetchAhead);
        }
        UnpackUnit<D, kFormat>(panels, streams[p], tails[p], bytes + p * kUnitSize,
                               Shape::kPlaneStride);
        streams[p] += UnitBytes(kFormat);
      }
      UnitDots<L, D, kFormat, kTokens, kPanels> dots;
      dots.Compute(bytes, x.codes, x.starts);
      if (kFormat == CodeFormat::kBits8 && panels.zeros) dots.Correct(panels, tails, x.sums);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const L scale = L::Set(x.scales[t]);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          inner[t][p] = L::Fma(L::ToFloat(dots.dot[t][p]), scale, inner[t][p]);
        }
      }
      x.Advance();
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const L scale = LoadScales<L, kFormat>(panels, tails[p]);
      streams[p] += GroupTailBytes(panels);
      for (int t = 0; t < kTokens; ++t) sum[t][p] = L::Fma(inner[t][p], scale, sum[t][p]);
    }
  }
  alignas(64) float sums[kTokens * kPanels * kLanes];
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) sum[t][p].Store(sums + (t * kPanels + p) * kLanes);
  }
  StoreOutputs<L, kTokens, kPanels>(tile, at, sums);
}

// Few tokens, at most L::kStreamTokens.
template <class L, class D, CodeFormat kFormat, int kTokens>
inline void StreamTokens(const PackedTile& tile) {
  constexpr int kPanels = kTokens == 1 ? L::kSinglePanels : L::kPanels;
  const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
  int panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) {
    StreamRegisters<L, D, kFormat, kTokens, kPanels>(tile, {panel, 0});
  }
  for (; panel < panels; ++panel) StreamRegisters<L, D, kFormat, kTokens, 1>(tile, {panel, 0});
}

// A piece of kPanels panels in scratch, and the sums of every token so far.
template <class L, class D, CodeFormat kFormat, int kPanels>
struct Piece {
  using Shape = PieceShape<kFormat, kPanels>;
  static constexpr int64_t kMostUnits = kPackedPieceUnits / PlanesOf(kFormat);
  static constexpr int kStateFloats = 2 * kPanels * kLanes;  // of a token: groups, then units

  const PackedTile& tile;
  int panel;
  int64_t first = 0, end = 0;  // units
  uint8_t* bytes;
  float* scales;
  float* states;  // [tokens, kStateFloats]

  // Where the next unit to unpack of each panel is.
  const uint8_t* streams[kPanels];

  // The end of unit `unit`'s group, whose units still to come begin at `from`.
  const uint8_t* Tail(const uint8_t* from, int64_t unit, int64_t until_group_ends) const {
    const int64_t left = tile.weight.units - unit;
    return from + (left < until_group_ends ? left : until_group_ends) * UnitBytes(kFormat);
  }

  void Unpack() {
    const PackedPanels& panels = tile.weight;
    int64_t until_group_ends = panels.units_per_group - first % panels.units_per_group;
    uint8_t* to = bytes;
    float* scale = scales;
    for (int64_t unit = first; unit < end; ++unit, to += Shape::kUnitStride) {
      const bool group_ends = until_group_ends == 1 || unit + 1 == panels.units;
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const uint8_t* from = streams[p];
        for (int64_t b = 0; b < UnitBytes(kFormat); b += 64) {
          __builtin_prefetch(from + b + kPrefetchAhead);
        }
        const uint8_t* tail = Tail(from, unit, until_group_ends);
        UnpackUnit<D, kFormat>(panels, from, tail, to + p * kUnitSize, Shape::kPlaneStride);
        streams[p] += UnitBytes(kFormat);
        if (!group_ends) continue;
        LoadScales<L, kFormat>(panels, tail).Store(scale + p * kLanes);
        streams[p] += GroupTailBytes(panels);
      }
      if (group_ends) scale += Shape::kScaleStride;
      until_group_ends = group_ends ? panels.units_per_group : until_group_ends - 1;
    }
  }

  // The units of this piece for kTokens tokens.
  template <int kTokens>
  void Multiply(int token) const {
    const PackedPanels& panels = tile.weight;
    const int64_t units = panels.units;
    Activations x(tile.x, token, first);
    float* state = states + int64_t{token} * kStateFloats;
    const auto group_sum = [&](int t, int p) { return state + t * kStateFloats + p * kLanes; };
    const auto unit_sum = [&](int t, int p) { return group_sum(t, p) + kPanels * kLanes; };
    L inner[kTokens][kPanels];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) inner[t][p] = L::Load(unit_sum(t, p));
    }
    int64_t until_group_ends = panels.units_per_group - first % panels.units_per_group;
    const float* scale = scales;
    for (int64_t unit = first; unit < end; ++unit) {
      for (int i = 0; i < kTokens * kUnitColumns; i += 64) {  // of the next tile
        __builtin_prefetch(x.codes + kTokens * kUnitColumns + i);
      }
      UnitDots<L, D, kFormat, kTokens, kPanels> dots;
      dots.Compute(bytes + (unit - first) * Shape::kUnitStride, x.codes, x.starts);
      if (kFormat == CodeFormat::kBits8 && panels.zeros) {
        const uint8_t* tails[kPanels];
        for (int p = 0; p < kPanels; ++p) {
          const int64_t tail = ScaleOffset(panels, kFormat, unit);
          tails[p] = tile.weight.data + (panel + p) * panels.panel_bytes + tail;
        }
        dots.Correct(panels, tails, x.sums);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const L by = L::Set(x.scales[t]);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          inner[t][p] = L::Fma(L::ToFloat(dots.dot[t][p]), by, inner[t][p]);
        }
      }
      x.Advance();
      if (--until_group_ends > 0 && unit + 1 != units) continue;
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const L by = L::Load(scale + p * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
          L::Fma(inner[t][p], by, L::Load(group_sum(t, p))).Store(group_sum(t, p));
          inner[t][p] = L::Zero();
        }
      }
      scale += Shape::kScaleStride;
      until_group_ends = panels.units_per_group;
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) inner[t][p].Store(unit_sum(t, p));
    }
  }

  // `count` tokens, 1 <= count <= kTokens.
  template <int kTokens>
  void MultiplySome(int token, int count) const {
    if constexpr (kTokens > 0) {
      if (count == kTokens) return Multiply<kTokens>(token);
      MultiplySome<kTokens - 1>(token, count);
    }
  }
  // All tokens, in register tiles of nearly equal size: small ones are slow.
  void MultiplyAll() const {
    constexpr int kMost = L::kPanelTokens;
    int tiles = (tile.tokens + kMost - 1) / kMost;
    for (int token = 0; token < tile.tokens; --tiles) {
      const int count = (tile.tokens - token + tiles - 1) / tiles;
      MultiplySome<kMost>(token, count);
      token += count;
    }
  }

  void Run() {
    for (int64_t i = 0; i < int64_t{tile.tokens} * kStateFloats; i += kLanes) {
      L::Zero().Store(states + i);
    }
    for (int p = 0; p < kPanels; ++p) {
      streams[p] = tile.weight.data + (panel + p) * tile.weight.panel_bytes;
    }
    const int64_t units = tile.weight.units;
    for (first = 0; first < units; first = end) {
      end = first + kMostUnits < units ? first + kMostUnits : units;
      Unpack();
      MultiplyAll();
    }
    for (int token = 0; token < tile.tokens; ++token) {
      StoreOutputs<L, 1, kPanels>(tile, {panel, token}, states + int64_t{token} * kStateFloats);
    }
  }
};

template <class L, class D, CodeFormat kFormat, int kPanels>
inline void PiecePanels(const PackedTile& tile, int panel) {
  uint8_t* bytes = tile.scratch;
  constexpr int64_t kUnits = kPackedPieceUnits;
  auto* scales = reinterpret_cast<float*>(bytes + kUnits * kPanels * kUnitSize);
  float* states = scales + kUnits * kPanels * kLanes;
  Piece<L, D, kFormat, kPanels>{
      .tile = tile, .panel = panel, .bytes = bytes, .scales = scales, .states = states}
      .Run();
}

template <class L, class D, CodeFormat kFormat>
void PackedTileKernel(const PackedTile& tile) {
  if (tile.tokens == 1) return StreamTokens<L, D, kFormat, 1>(tile);
  if constexpr (L::kStreamTokens >= 2) {
    if (tile.tokens == 2) return StreamTokens<L, D, kFormat, 2>(tile);
  }
  if constexpr (L::kStreamTokens >= 4) {
    if (tile.tokens == 3) return StreamTokens<L, D, kFormat, 3>(tile);
    if (tile.tokens == 4) return StreamTokens<L, D, kFormat, 4>(tile);
  }
  const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
  int panel = 0;
  for (; panel + L::kPanels <= panels; panel += L::kPanels) {
    PiecePanels<L, D, kFormat, L::kPanels>(tile, panel);
  }
  for (; panel < panels; ++panel) PiecePanels<L, D, kFormat, 1>(tile, panel);
}

}  // namespace
}  // namespace sauva
