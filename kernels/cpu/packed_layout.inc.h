#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/numerics.h"

// Where codes lie in a packed panel of 16 rows. A unit is 32 columns of them, cut into 8
// quads of 4 columns; quad q as 64 unsigned bytes, byte 4 * row + column, is what integer
// dot products take. Packed: 8 bits as they are; 4 bits (NF4 too) two quads in 64 bytes, the
// even one in the low nibbles; 3 bits as 64 bytes with two bits of quads 0 to 3, 64 with
// those of 4 to 7, and 64 with the highest bit of quad q in bit q.
// Included by files of every instruction set: internal linkage only.
namespace sauva {
namespace {

constexpr int kPanelRows = kLanes;
constexpr int kUnitColumns = kInt8Unit;
constexpr int kQuads = kUnitColumns / 4;
constexpr int kQuadBytes = 4 * kPanelRows;

constexpr int64_t UnitBytes(CodeFormat format) {
  constexpr int kBits[kNumCodeFormats] = {8, 4, 3, 4};
  return kPanelRows * kUnitColumns * kBits[static_cast<int>(format)] / 8;
}

// The code that stands for zero where a matrix has no zero points.
constexpr int MiddleZero(CodeFormat format) {
  constexpr int kMiddle[kNumCodeFormats] = {128, 8, 4, 0};
  return kMiddle[static_cast<int>(format)];
}

constexpr int64_t ScaleBytes(const PackedPanels& panels) {
  return kPanelRows * (panels.half_scales ? 2 : 4);
}

constexpr int64_t GroupTailBytes(const PackedPanels& panels) {
  return ScaleBytes(panels) + (panels.zeros ? kPanelRows : 0);
}

// Where in a panel unit `unit` begins.
constexpr int64_t UnitOffset(const PackedPanels& panels, CodeFormat format, int64_t unit) {
  return unit * UnitBytes(format) + unit / panels.units_per_group * GroupTailBytes(panels);
}

// Where in a panel the scales of a unit's group begin.
constexpr int64_t ScaleOffset(const PackedPanels& panels, CodeFormat format, int64_t unit) {
  const int64_t group = unit / panels.units_per_group;
  const int64_t next = (group + 1) * panels.units_per_group;
  const int64_t end = next < panels.units ? next : panels.units;
  return end * UnitBytes(format) + group * GroupTailBytes(panels);
}

// One code of a unit, row in [0, 16), column in [0, 32).
inline int ReadCode(const uint8_t* unit, CodeFormat format, int row, int column) {
  const int quad = column / 4;
  const int byte = 4 * row + column % 4;
  if (format == CodeFormat::kBits8) return unit[quad * kQuadBytes + byte];
  if (format == CodeFormat::kBits3) {
    const int low = unit[quad / 4 * kQuadBytes + byte] >> (2 * (quad % 4)) & 3;
    return low | (unit[2 * kQuadBytes + byte] >> quad & 1) << 2;
  }
  return unit[quad / 2 * kQuadBytes + byte] >> (4 * (quad % 2)) & 15;
}

// Writes a row's 32 codes of a unit, a byte each.
template <CodeFormat kFormat>
inline void WriteRow(const uint8_t* codes, int row, uint8_t* unit) {
  const auto put = [&](int index, uint32_t bits) {
    __builtin_memcpy(unit + index * kQuadBytes + 4 * row, &bits, sizeof bits);
  };
  const auto quad = [&](int index) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, codes + 4 * index, sizeof bytes);
    return bytes;
  };
  if constexpr (kFormat == CodeFormat::kBits8) {
#pragma GCC unroll 8
    for (int q = 0; q < kQuads; ++q) put(q, quad(q));
  } else if constexpr (kFormat == CodeFormat::kBits3) {
    uint32_t low[2] = {}, high = 0;
#pragma GCC unroll 8
    for (int q = 0; q < kQuads; ++q) {
      low[q / 4] |= (quad(q) & 0x03030303u) << (2 * (q % 4));
      high |= (quad(q) >> 2 & 0x01010101u) << q;
    }
    put(0, low[0]);
    put(1, low[1]);
    put(2, high);
  } else {
#pragma GCC unroll 4
    for (int q = 0; q < kQuads; q += 2) put(q / 2, quad(q) | quad(q + 1) << 4);
  }
}

}  // namespace
}  // namespace sauva
