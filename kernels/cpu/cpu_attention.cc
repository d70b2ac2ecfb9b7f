#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_kv_cache.h"
#include "kernels/numerics.h"

namespace sauva {
namespace {

// Queries of one tile: enough that a block read from memory serves many, few enough that
// their sums stay in L1.
constexpr int kTileQueries = 32;

// Floats of scratch for `queries` queries.
int64_t ScratchFloats(int64_t queries, int head_dim) {
  const int64_t padded = (head_dim + kLanes - 1) / kLanes * kLanes;
  return queries * (kAttentionStateFloats + 2 * padded);
}

}  // namespace

absl::Status CpuBackend::ReserveAttention() {
  // One token needs its heads' scratch; the narrowest heads, of one dim, need most.
  const int64_t one_token = ScratchFloats(max_columns_, 1);
  attention_floats_ = (one_token + kLanes - 1) / kLanes * kLanes;
  ASSIGN_OR_RETURN(attention_scratch_, HostMemory::Allocate(attention_floats_ * pool_.threads() *
                                                            int64_t{sizeof(float)}));
  attention_tiles_.resize(static_cast<size_t>(step_.limits().max_sequences) + 1);
  return absl::OkStatus();
}

void CpuBackend::WriteKv(const WriteKvArgs& args) {
  const auto& cache = static_cast<const CpuKvCache&>(*args.cache);
  const KvShape& shape = cache.shape();
  const auto write = kernels_.write_kv[shape.dtype == DType::kF16 ? 1 : 0];
  for (int row = 0; row < args.keys.rows; ++row) {
    const auto t = static_cast<size_t>(row);
    const int position = step_.positions()[t];
    const int32_t block =
        step_.blocks(args.kv_group, step_.sequence_rows()[t])[position / kAttentionBlock];
    Check(block >= 0 && block < shape.num_blocks, "block ids are of the pool");
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      const int64_t first = int64_t{head} * shape.head_dim;
      write({.block = cache.head(block, head),
             .token = position % kAttentionBlock,
             .head_dim = shape.head_dim,
             .key = args.keys.row(row) + first,
             .value = args.values.row(row) + first});
    }
  }
}

int64_t CpuBackend::PlanAttentionTiles(int tokens_per_tile) {
  const std::span<const int32_t> first_tokens = step_.first_tokens();
  int64_t tiles = 0;
  for (size_t s = 0; s + 1 < first_tokens.size(); ++s) {
    attention_tiles_[s] = tiles;
    const int tokens = first_tokens[s + 1] - first_tokens[s];
    tiles += (tokens + tokens_per_tile - 1) / tokens_per_tile;
  }
  return tiles;
}

void CpuBackend::Attention(const AttentionArgs& args) {
  const auto& cache = static_cast<const CpuKvCache&>(*args.cache);
  const KvShape& shape = cache.shape();
  const int heads = args.num_heads / shape.num_kv_heads;
  const int64_t token_floats = ScratchFloats(heads, shape.head_dim);
  Check(token_floats <= attention_floats_, "a token's heads fit the reserved columns");
  const auto fitting = static_cast<int>(attention_floats_ / token_floats);
  const int tokens_per_tile = std::clamp(kTileQueries / heads, 1, fitting);
  const int64_t token_tiles = PlanAttentionTiles(tokens_per_tile);
  const auto attend = kernels_.attend[shape.dtype == DType::kF16 ? 1 : 0];
  const auto tiles_before =
      std::span(attention_tiles_).first(static_cast<size_t>(step_.num_sequences()));
  pool_.Run(token_tiles * shape.num_kv_heads, [&](int64_t tile, int thread) {
    const int64_t token_tile = tile / shape.num_kv_heads;
    const auto kv_head = static_cast<int>(tile % shape.num_kv_heads);
    // The last sequence that starts at or before this tile (those without tokens have none).
    const auto after = std::upper_bound(tiles_before.begin(), tiles_before.end(), token_tile);
    const auto sequence = static_cast<size_t>(after - tiles_before.begin()) - 1;
    const int first = step_.first_tokens()[sequence] +
                      static_cast<int>(token_tile - tiles_before[sequence]) * tokens_per_tile;
    const int end = std::min(first + tokens_per_tile, step_.first_tokens()[sequence + 1]);
    const auto row = static_cast<size_t>(first);
    const int64_t column = int64_t{kv_head} * heads * shape.head_dim;
    attend({.queries = args.queries.row(first) + column,
            .query_stride = args.queries.stride,
            .out = args.out.row(first) + column,
            .out_stride = args.out.stride,
            .tokens = end - first,
            .heads = heads,
            .head_dim = shape.head_dim,
            .first_position = step_.positions()[row],
            .window = args.window,
            .score_scale = args.score_scale,
            .blocks = step_.blocks(args.kv_group, step_.sequence_rows()[row]),
            .cache = reinterpret_cast<const unsigned char*>(cache.head(0, kv_head)),
            .block_stride = cache.block_bytes(),
            .scratch = attention_scratch_.as<float>().data() + thread * attention_floats_});
  });
}

}  // namespace sauva
