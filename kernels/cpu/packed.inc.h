#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.inc.h"
#include "kernels/half.h"
#include "kernels/numerics.h"

// Quantized matmul: exact integer dot products per unit of 32 columns, units added in order
// in f32 to their group and groups to the output. 16 weight rows along the lanes. D has the
// integer dot products of a lane type L.
namespace sauva {
namespace {

// NF4 codes stand for 16-bit numbers + 32768, of which there are two planes of bytes.
constexpr int kPlanes = 2;
constexpr int kFixedOffset = 32768;

struct UnpackedUnit {
  alignas(64) uint8_t plane[kPlanes][kQuads * kQuadBytes];
};

template <CodeFormat kFormat>
inline void Unpack(const uint8_t* unit, UnpackedUnit& out) {
  for (int quad = 0; quad < kQuads; ++quad) {
    for (int byte = 0; byte < kQuadBytes; ++byte) {
      const int code = ReadCode(unit, kFormat, byte / 4, 4 * quad + byte % 4);
      const int at = quad * kQuadBytes + byte;
      if constexpr (kFormat == CodeFormat::kNf4) {
        const int fixed = kNf4Fixed[code] + kFixedOffset;
        out.plane[0][at] = static_cast<uint8_t>(fixed & 255);
        out.plane[1][at] = static_cast<uint8_t>(fixed >> 8);
      } else {
        out.plane[0][at] = static_cast<uint8_t>(code);
      }
    }
  }
}

struct PanelZeros {
  int32_t zero[kPanelRows];
};

template <CodeFormat kFormat>
inline PanelZeros LoadZeros(const PackedPanels& panels, const uint8_t* zeros) {
  PanelZeros result;
  for (int r = 0; r < kPanelRows; ++r) {
    result.zero[r] = kFormat == CodeFormat::kNf4 ? kFixedOffset
                     : panels.zeros              ? zeros[r]
                                                 : MiddleZero(kFormat);
  }
  return result;
}

template <class L>
inline L LoadStoredScales(const PackedPanels& panels, const uint8_t* at) {
  if (panels.half_scales) {
    uint16_t halves[kPanelRows];
    __builtin_memcpy(halves, at, sizeof halves);
    return L::LoadHalf(halves);
  }
  float scales[kPanelRows];
  __builtin_memcpy(scales, at, sizeof scales);
  return L::Load(scales);
}

template <class L, CodeFormat kFormat>
inline L LoadScales(const PackedPanels& panels, const uint8_t* at) {
  const L scales = LoadStoredScales<L>(panels, at);
  if constexpr (kFormat != CodeFormat::kNf4) return scales;
  return L::Multiply(scales, L::Set(kNf4FixedStep));
}

// The exact dot products of 16 rows with a unit of one token, as floats.
template <class L, class D, CodeFormat kFormat>
inline L DotUnit(const UnpackedUnit& unit, const PanelZeros& zeros, const int8_t* codes,
                 int32_t sum) {
  typename D::Integers dot = D::SetInteger(0);
  if constexpr (kFormat == CodeFormat::kNf4) {
    for (int q = 0; q < kQuads; ++q) {
      dot = D::DotQuads(dot, D::LoadBytes(unit.plane[1] + q * kQuadBytes),
                        D::LoadQuad(codes + 4 * q));
    }
    dot = L::Times256(dot);
  }
  for (int q = 0; q < kQuads; ++q) {
    dot =
        D::DotQuads(dot, D::LoadBytes(unit.plane[0] + q * kQuadBytes), D::LoadQuad(codes + 4 * q));
  }
  return L::ToFloat(L::SubtractProduct(dot, zeros.zero, sum));
}

// kTokens tokens, at most, and one panel.
template <class L, class D, CodeFormat kFormat>
inline void PackedRegisters(const PackedTile& tile, int panel, int token, int count) {
  constexpr int kMost = 8;
  const PackedPanels& panels = tile.weight;
  const uint8_t* weight = panels.data + panel * panels.panel_bytes;
  L sum[kMost], inner[kMost];
  for (int t = 0; t < count; ++t) sum[t] = inner[t] = L::Zero();
  for (int64_t u = 0; u < panels.units; ++u) {
    UnpackedUnit unit;
    Unpack<kFormat>(weight + UnitOffset(panels, kFormat, u), unit);
    const uint8_t* scales = weight + ScaleOffset(panels, kFormat, u);
    const PanelZeros zeros = LoadZeros<kFormat>(panels, scales + ScaleBytes(panels));
    for (int t = 0; t < count; ++t) {
      const int64_t at = (token + t) * panels.units + u;
      const L dot =
          DotUnit<L, D, kFormat>(unit, zeros, tile.x.codes + at * kUnitColumns, tile.x.sums[at]);
      inner[t] = L::Fma(dot, L::Set(tile.x.scales[at]), inner[t]);
    }
    if ((u + 1) % panels.units_per_group != 0 && u + 1 != panels.units) continue;
    const L scale = LoadScales<L, kFormat>(panels, scales);
    for (int t = 0; t < count; ++t) {
      sum[t] = L::Fma(inner[t], scale, sum[t]);
      inner[t] = L::Zero();
    }
  }
  const int row = panel * kPanelRows;
  const int64_t rows = tile.rows - row;
  for (int t = 0; t < count; ++t) {
    L result = sum[t];
    if (tile.bias) result = L::Add(result, L::LoadPartial(tile.bias + row, rows));
    result.StorePartial(tile.out + (token + t) * tile.out_stride + row, rows);
  }
}

template <class L, class D, CodeFormat kFormat>
void PackedTileKernel(const PackedTile& tile) {
  constexpr int kTokens = 8;
  for (int panel = 0; panel * kPanelRows < tile.rows; ++panel) {
    for (int token = 0; token < tile.tokens; token += kTokens) {
      const int left = tile.tokens - token;
      PackedRegisters<L, D, kFormat>(tile, panel, token, left < kTokens ? left : kTokens);
    }
  }
}

}  // namespace
}  // namespace sauva
