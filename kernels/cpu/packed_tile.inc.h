#pragma once

#include "kernels/cpu/packed_batch.inc.h"
#include "kernels/cpu/packed_piece.inc.h"
#include "kernels/cpu/packed_stream.inc.h"

// Which way a quantized matmul goes over its matrix: by the number of tokens and by what
// integer dot products the instruction set has.
namespace sauva {
namespace {

// Parts of nearly the same size: small ones are slow.
template <class D>
int TileTokens(int tokens) {
  static_assert(D::kPanelTokens <= kMostTileTokens);
  if (tokens <= D::kStreamTokens) return tokens;
  const int tiles = (tokens + D::kPanelTokens - 1) / D::kPanelTokens;
  const int part = (tokens + tiles - 1) / tiles;
  return D::kBatches ? (part + kBatchStep - 1) / kBatchStep * kBatchStep : part;
}

template <class L, class D, CodeFormat kFormat>
void PackedTileKernel(const PackedTile& tile) {
  if (tile.tokens <= Least(D::kStreamTokens, tile.x.stride)) {
    return StreamSome<L, D, kFormat, D::kStreamTokens>(tile);
  }
  if constexpr (D::kBatches) {
    BatchTile<L, D, kFormat>(tile);
  } else {
    PieceTile<L, D, kFormat>(tile);
  }
}

}  // namespace
}  // namespace sauva
