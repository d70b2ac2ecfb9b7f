#pragma once

#include <cstdint>

// Where the elements of a matrix lie in device memory; the same words for who packs them on
// the host and for the kernels that stream them.
namespace sauva::cuda {

// Float matrices: [rows][chunks of 64 columns][16 lanes][4 steps]. A thread that is virtual
// lane l of a row reads 4 of its elements at once, and 16 threads read what lies together.
constexpr int kFloatSteps = 4;
constexpr int kFloatChunk = 64;

constexpr int64_t FloatChunks(int64_t columns) { return (columns + kFloatChunk - 1) / kFloatChunk; }
constexpr int64_t FloatOffset(int64_t row, int64_t column, int64_t chunks) {
  const int64_t lane = column % 16;
  const int64_t step = column / 16 % kFloatSteps;
  return (row * chunks + column / kFloatChunk) * kFloatChunk + lane * kFloatSteps + step;
}

// Matrices of codes: tiles of 16 rows by groups of 32 columns, in the order in which the 32
// lanes of a warp hold them for one matrix instruction: 16 codes per lane in four registers.
constexpr int kTileRows = 16;
constexpr int kTileColumns = 32;

struct TilePlace {
  int lane = 0;
  int part = 0;  // register of the lane
  int byte = 0;  // of the register
};
constexpr TilePlace WeightPlace(int row, int column) {
  return {.lane = row % 8 * 4 + column % 16 / 4,
          .part = row / 8 + 2 * (column / 16),
          .byte = column % 4};
}
// Activations as the other operand: tiles of 8 tokens by groups of 32 columns, 8 codes per
// lane in two registers.
constexpr int kTileTokens = 8;
constexpr TilePlace ActivationPlace(int token, int column) {
  return {.lane = token * 4 + column % 16 / 4, .part = column / 16, .byte = column % 4};
}

// Where a code narrower than a byte lies: in which byte of its tile, and how far up.
struct BitPlace {
  int byte = 0;
  int shift = 0;
};
// Int4: 8 bytes per lane, registers 0 and 1 in the low and high halves of four bytes.
constexpr BitPlace Int4Place(TilePlace p) {
  return {.byte = p.lane * 8 + p.part / 2 * 4 + p.byte, .shift = 4 * (p.part % 2)};
}
// NF4: 8 bytes per lane, a register's four codes one after another, to be looked up at once.
constexpr BitPlace Nf4Place(TilePlace p) {
  return {.byte = p.lane * 8 + p.part * 2 + p.byte / 2, .shift = 4 * (p.byte % 2)};
}
// Int3: the lower two bits in 4 bytes per lane; the highest bits of two groups, an even one
// and the next, in 4 bytes per lane of another array.
constexpr BitPlace Int3LowPlace(TilePlace p) {
  return {.byte = p.lane * 4 + p.byte, .shift = 2 * p.part};
}
constexpr BitPlace Int3HighPlace(TilePlace p, int64_t group) {
  return {.byte = p.lane * 4 + p.byte, .shift = static_cast<int>(group % 2) * 4 + p.part};
}

}  // namespace sauva::cuda
