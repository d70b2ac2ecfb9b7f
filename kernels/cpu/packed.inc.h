#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.inc.h"
#include "kernels/cpu/unpack.inc.h"
#include "kernels/numerics.h"

// Quantized matmul: exact integer dot products per activation group, those added in order in
// f32 to the weight's group and groups to the output. 16 weight rows along the lanes. D has
// the integer dot products of a lane type L. Here: what both ways of going over a matrix
// share. Few tokens: packed_stream.inc.h; many: packed_piece.inc.h.
namespace sauva {
namespace {

// Register tiles of packed_batch.inc.h are for numbers of tokens that this divides.
constexpr int kBatchStep = 2;

// Where an unpacked unit of kPanels panels has its planes: [plane, panel, 512 bytes].
template <CodeFormat kFormat, int kPanels>
struct UnitShape {
  static constexpr int64_t kPlaneStride = int64_t{kPanels} * kUnitSize;
  static constexpr int64_t kStride = PlanesOf(kFormat) * kPlaneStride;
};

inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// kToL2: not to L1, which waits for fewer lines at a time.
constexpr int kToL1 = 3;
constexpr int kToL2 = 2;
template <int64_t kBytes, int kLevel = kToL1>
inline void PrefetchLines(const void* from) {
#pragma GCC unroll 8
  for (int64_t b = 0; b < kBytes; b += 64) {
    __builtin_prefetch(static_cast<const uint8_t*>(from) + b, 0, kLevel);
  }
}

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

// Dot products of kTokens tokens with kPanels panels.
template <class L, class D, CodeFormat kFormat, int kTokens, int kPanels>
struct PanelDots {
  typename D::Integers dot[kTokens][kPanels];

  // `starts` of the tokens; where the matrix has zero points, `zeros` of the panels.
  void Start(const PackedPanels& panels, const uint8_t* const zeros[kPanels],
             const int32_t* starts) {
    if (kFormat != CodeFormat::kNf4 && panels.zeros) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const auto zero = L::LoadZeros(zeros[p], kCodeBase<D, kFormat>);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) dot[t][p] = L::TimesZeros(zero, starts[t]);
      }
      return;
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const auto start = D::SetInteger(starts[t]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) dot[t][p] = start;
    }
  }
  void Clear() {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) dot[t][p] = D::SetInteger(0);
    }
  }
  // Some quads of a plane: [panel, quad, 64 bytes]. x: their codes, of tokens 32 apart.
  template <int kCount = kQuads>
  void Add(const uint8_t* bytes, const int8_t* x) {
    if constexpr (IsSmall(kFormat)) {
      D::template DotSmall<kCount>(dot, bytes, x);
    } else {
      D::template DotWide<kCount>(dot, bytes, x);
    }
  }
  void Times256() {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) dot[t][p] = L::Times256(dot[t][p]);
    }
  }
};

// Activations of a register tile that starts at token `token`, from some unit on.
struct Activations {
  Activations(const PackedTile& tile, int token, int64_t unit)
      : stride(tile.x.stride), group_units(tile.weight.activation_units) {
    const int64_t units = tile.weight.units;
    const int64_t index = token / stride;
    const int64_t groups = (units + group_units - 1) / group_units;
    const int64_t group = (index * groups + unit / group_units) * stride;
    codes = tile.x.codes + (index * units + unit) * stride * kUnitColumns;
    scales = tile.x.scales + group;
    starts = tile.x.starts + group;
  }
  void NextUnit() { codes += stride * kUnitColumns; }
  void NextGroup() {
    scales += stride;
    starts += stride;
  }
  const int64_t stride;
  const int64_t group_units;
  const int8_t* codes;
  const float* scales;
  const int32_t* starts;
};

// Tokens [first, first + count) of a tile.
struct TokenRange {
  int first, count;
};

// Calls f.template operator()<n>(panel) for each n panels of a tile: kPanels, then one by one.
template <int kPanels, class F>
inline void ForEachPanel(const PackedTile& tile, F f) {
  const int panels = (tile.rows + kPanelRows - 1) / kPanelRows;
  int panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) f.template operator()<kPanels>(panel);
  if constexpr (kPanels > 1) {
    for (; panel < panels; ++panel) f.template operator()<1>(panel);
  }
}

// 16 outputs of a token: panel `panel` of the tile.
template <class L>
inline void StoreOutput(const PackedTile& tile, int token, int panel, L result) {
  const int row = panel * kPanelRows;
  const int64_t rows = tile.rows - row;
  if (tile.bias) result = L::Add(result, L::LoadPartial(tile.bias + row, rows));
  result.StorePartial(tile.out + token * tile.out_stride + row, rows);
}

}  // namespace
}  // namespace sauva
