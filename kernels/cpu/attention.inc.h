#pragma once

#include <cstdint>

#include "kernels/cpu/attention_block.inc.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/kv_block.inc.h"
#include "kernels/numerics.h"

// Attention over paged keys and values, tile by tile: the queries of a tile go through each
// span in groups, whose sums and the block at hand, as f32, stay in L1.
namespace sauva {
namespace {

constexpr int kBlocksPerSpan = kAttentionSpan / kAttentionBlock;

// What `queries` queries have summed up.
struct AttentionSums {
  float* largest;  // [queries]
  float* weight;   // [queries]
  float* sums;     // [queries, padded], with room for kAttentionSpareQueries
  int padded;

  static AttentionSums At(float* memory, int queries, int padded) {
    return {memory, memory + queries, memory + 2 * queries, padded};
  }
  AttentionSums From(int query) const {
    return {largest + query, weight + query, sums + int64_t{query} * padded, padded};
  }
};

// `rows`: of sums, the queries and perhaps spare ones.
template <class L>
inline void Clear(const AttentionSums& to, int queries, int rows) {
  for (int q = 0; q < queries; ++q) {
    to.largest[q] = kNoScore;
    to.weight[q] = 0;
  }
  for (int64_t i = 0; i < int64_t{rows} * to.padded; i += kLanes) L::Zero().Store(to.sums + i);
}

// The scratch of a tile, laid out.
struct TileScratch {
  explicit TileScratch(const AttentionTile& tile)
      : tile_dim(tile.head_dim),
        padded((tile.head_dim + kLanes - 1) / kLanes * kLanes),
        keys(tile.scratch),
        values(keys + tile.head_dim * kAttentionBlock),
        queries(values + 2 * kAttentionBlock * padded),
        largest(queries + kAttentionGroup * tile.head_dim),
        weight(largest + kAttentionGroup * kLanes),
        pending(weight + kAttentionGroup * kLanes),
        span(weight + kAttentionGroup * (kLanes + 2 * kAttentionPendingFloats)),
        total(span + AttentionSumFloats(kAttentionGroup, tile.head_dim)) {}

  // Even and odd blocks have values of their own.
  BlockScratch block(int index) const {
    return {keys, values + index % 2 * kAttentionBlock * padded, tile_dim, padded};
  }
  template <class Block>
  Pending<Block>& pending_of(int query, int index) const {
    static_assert(sizeof(Pending<Block>) <= kAttentionPendingFloats * sizeof(float));
    float* at = pending + (2 * query + index % 2) * kAttentionPendingFloats;
    return *reinterpret_cast<Pending<Block>*>(at);
  }

  const int tile_dim;
  const int padded;
  float* const keys;     // [head_dim, 16]
  float* const values;   // [2, 16, padded]
  float* const queries;  // [head_dim, kQueries] of each run of a group
  float* const largest;  // [group, 16], used where a run starts
  float* const weight;   // [group, 16]
  float* const pending;  // [group, 2, kAttentionPendingFloats]
  float* const span;     // AttentionSums of a group
  float* const total;    // AttentionSums of the tile
};

// How many queries runs of up to `most` compute where there are `count`: a run that is more than
// half full takes spare ones, which is faster than several smaller runs.
inline int WithSpare(int count, int most) {
  int slots = count / most * most;
  for (int left = count - slots; left > 0; left = count - slots) {
    while (most / 2 >= left) most /= 2;
    slots += most;
  }
  return slots;
}

// Up to kAttentionGroup queries of a tile, and spare ones that do as the last one does and are
// forgotten.
struct Group {
  Group(const AttentionTile& of_tile, const TileScratch& tile_scratch, int first_query,
        int most_of_run)
      : tile(of_tile),
        scratch(tile_scratch),
        first(first_query),
        count(Least(of_tile.tokens * of_tile.heads - first_query, kAttentionGroup)),
        slots(WithSpare(count, most_of_run)) {
    for (int q = 0; q < slots; ++q) {
      position[q] = tile.first_position + (first + Least(q, count - 1)) / tile.heads;
    }
  }
  static int Least(int a, int b) { return a < b ? a : b; }
  const float* query(int index) const {
    const int q = first + Least(index, count - 1);
    return tile.queries + q / tile.heads * tile.query_stride + q % tile.heads * tile.head_dim;
  }

  const AttentionTile& tile;
  const TileScratch& scratch;
  const int first, count, slots;
  int position[kAttentionGroup];
};

// Calls f.template operator()<n>(query) for runs of n queries: as many as registers hold,
// then fewer, down to one.
template <int kQueries, class F>
inline void ForEachRun(int count, F f, int query = 0) {
  for (; query + kQueries <= count; query += kQueries) f.template operator()<kQueries>(query);
  if constexpr (kQueries > 1) ForEachRun<kQueries / 2>(count, f, query);
}

// Runs start with their queries transposed, so that a dot product walks through memory.
template <class L, class Block>
inline void StartRuns(const Group& group) {
  const int head_dim = group.tile.head_dim;
  ForEachRun<L::kQueries>(group.slots, [&]<int kQueries>(int query) {
    float* to = group.scratch.queries + query * head_dim;
    for (int n = 0; n < kQueries; ++n) {
      const float* from = group.query(query + n);
      for (int d = 0; d < head_dim; ++d) to[d * kQueries + n] = from[d];
    }
    L::Set(kNoScore).Store(group.scratch.largest + query * kLanes);
    L::Zero().Store(group.scratch.weight + query * kLanes);
    for (int block = 0; block < 2; ++block) {
      group.scratch.pending_of<Block>(query, block).waits = false;
    }
  });
}

template <class L>
inline void EndRuns(const Group& group, const AttentionSums& to) {
  ForEachRun<L::kQueries>(group.slots, [&]<int kQueries>(int query) {
    for (int n = 0; n < kQueries && query + n < group.count; ++n) {
      to.largest[query + n] = group.scratch.largest[query * kLanes + n];
      to.weight[query + n] = group.scratch.weight[query * kLanes + n];
    }
  });
}

// Scores a block for the queries of a group and then adds the values of the block before,
// which needs nothing of the scores: a processor does both at a time.
template <class L, class Block>
void VisitBlock(const Group& group, int block, const Block& content, const BlockAhead& ahead,
                float* sums) {
  const TileScratch& scratch = group.scratch;
  const AttentionTile& tile = group.tile;
  ForEachRun<L::kQueries>(group.slots, [&]<int kQueries>(int query) {
    const QueryRun run{.queries = scratch.queries + query * tile.head_dim,
                       .largest = scratch.largest + query * kLanes,
                       .weight = scratch.weight + query * kLanes,
                       .sums = sums + query * scratch.padded};
    const int* positions = group.position + query;
    // Positions ascend, so the ends of a run tell whether some query sees too little.
    const KeyRange first = VisibleKeys(positions[0], tile.window, block);
    const KeyRange last = VisibleKeys(positions[kQueries - 1], tile.window, block);
    if (last.end > 0 && first.first < kAttentionBlock) {
      KeyRange ranges[kQueries];
      const bool whole = first.whole() && last.whole();
      for (int n = 0; !whole && n < kQueries; ++n) {
        ranges[n] = VisibleKeys(positions[n], tile.window, block);
      }
      Pending<Block>& pending = scratch.pending_of<Block>(query, block);
      pending.block = content;
      ScoreBlock<L, kQueries>(run, tile.head_dim, tile.score_scale, whole ? nullptr : ranges,
                              query == 0 ? ahead.keys : Ahead{}, pending);
      pending.waits = true;
    }
    FinishBlock<L, kQueries>(run, scratch.padded, scratch.pending_of<Block>(query, block + 1),
                             query == 0 ? ahead.values : Ahead{});
  });
}

template <class L, class Block>
void FinishLastBlock(const Group& group, int block, float* sums) {
  ForEachRun<L::kQueries>(group.slots, [&]<int kQueries>(int query) {
    const QueryRun run{.sums = sums + query * group.scratch.padded};
    FinishBlock<L, kQueries>(run, group.scratch.padded,
                             group.scratch.pending_of<Block>(query, block));
  });
}

// The blocks of a span that some query of the group sees.
struct BlockRange {
  int first, end;
};

inline int EndBlock(const Group& group) {  // of all spans
  return group.position[group.count - 1] / kAttentionBlock + 1;
}
inline BlockRange VisibleBlocks(const Group& group, int span) {
  const int oldest = group.tile.window == 0 ? 0 : group.position[0] - group.tile.window + 1;
  const int first = oldest < 0 ? 0 : oldest / kAttentionBlock;
  const int end = EndBlock(group);
  const int span_first = span * kBlocksPerSpan;
  const int span_end = span_first + kBlocksPerSpan;
  return {first > span_first ? first : span_first, end < span_end ? end : span_end};
}

// Sums up one span for a group whose queries read blocks as `see` makes them. Fully masked blocks
// change no bit, so only the visible ones are visited.
template <class L, class Block, class F>
inline void VisitBlocks(const Group& group, BlockRange blocks, const AttentionSums& to, F see) {
  const AttentionTile& tile = group.tile;
  const auto at = [&](int block) { return tile.cache + tile.blocks[block] * tile.head_bytes; };
  const BlockAhead steps = BlockAhead::Of(tile.head_bytes, group.scratch.padded);
  StartRuns<L, Block>(group);
  for (int block = blocks.first; block < blocks.end; ++block) {
    BlockAhead ahead;  // the next span's, too
    if (block + 1 < EndBlock(group)) ahead = steps.At(at(block + 1), tile.head_bytes);
    const Block content = see(block, at(block));
    VisitBlock<L, Block>(group, block, content, ahead, to.sums);
  }
  FinishLastBlock<L, Block>(group, blocks.end - 1, to.sums);
  EndRuns<L>(group, to);
}

// Where each number is read once, by a single run, it is widened as it is read, if at all.
template <class L, class Stored>
inline void VisitSpan(const Group& group, int span, const AttentionSums& to) {
  Clear<L>(to, group.count, group.slots);
  const BlockRange blocks = VisibleBlocks(group, span);
  if (blocks.first >= blocks.end) return;
  const int head_dim = group.tile.head_dim;
  const bool one_run = group.slots <= L::kQueries && (group.slots & (group.slots - 1)) == 0;
  if ((Stored::kWide || one_run) && head_dim % kLanes == 0) {
    VisitBlocks<L, Stored>(group, blocks, to, [&](int, const unsigned char* block) {
      return Stored::At(block, head_dim);
    });
  } else {
    VisitBlocks<L, WideBlock<L>>(group, blocks, to, [&](int index, const unsigned char* block) {
      return Widen<L>(Stored::At(block, head_dim), group.scratch.block(index));
    });
  }
}

template <class L>
inline float RescaleFactor(float from, float to) {
  return from == to ? 1.0f : ExpOne<L>(from - to);
}

template <class L>
inline void MergeSpan(const AttentionSums& span, const AttentionSums& total, int queries) {
  for (int q = 0; q < queries; ++q) {
    if (span.largest[q] == kNoScore) continue;
    const float before = total.largest[q];
    const float largest = before > span.largest[q] ? before : span.largest[q];
    const float keep = RescaleFactor<L>(before, largest);
    const float join = RescaleFactor<L>(span.largest[q], largest);
    total.weight[q] = __builtin_fmaf(total.weight[q], keep, span.weight[q] * join);
    total.largest[q] = largest;
    const float* from = span.sums + int64_t{q} * span.padded;
    float* sums = total.sums + int64_t{q} * total.padded;
    for (int d = 0; d < total.padded; d += kLanes) {
      const L joined = L::Multiply(L::Load(from + d), L::Set(join));
      L::Fma(L::Load(sums + d), L::Set(keep), joined).Store(sums + d);
    }
  }
}

template <class L>
inline void Finish(const AttentionTile& tile, const AttentionSums& total) {
  for (int q = 0; q < tile.tokens * tile.heads; ++q) {
    const L weight = L::Set(total.weight[q]);
    const float* sums = total.sums + int64_t{q} * total.padded;
    float* out = tile.out + q / tile.heads * tile.out_stride + q % tile.heads * tile.head_dim;
    for (int d = 0; d < tile.head_dim; d += kLanes) {
      L::Divide(L::Load(sums + d), weight).StorePartial(out + d, tile.head_dim - d);
    }
  }
}

template <class L, class F>
inline void ForEachGroup(const AttentionTile& tile, const TileScratch& scratch, F f) {
  static_assert(L::kQueries / 2 - 1 <= kAttentionSpareQueries);
  const int queries = tile.tokens * tile.heads;
  for (int first = 0; first < queries; first += kAttentionGroup) {
    f(Group(tile, scratch, first, L::kQueries));
  }
}

// All spans of a tile.
template <class L, class Stored>
void AttendKernel(const AttentionTile& tile) {
  const TileScratch scratch(tile);
  const int queries = tile.tokens * tile.heads;
  const AttentionSums total = AttentionSums::At(scratch.total, queries, scratch.padded);
  Clear<L>(total, queries, queries);
  for (int span = FirstSpan(tile); span < EndSpan(tile); ++span) {
    ForEachGroup<L>(tile, scratch, [&](const Group& group) {
      const AttentionSums sums = AttentionSums::At(scratch.span, group.count, scratch.padded);
      VisitSpan<L, Stored>(group, span, sums);
      MergeSpan<L>(sums, total.From(group.first), group.count);
    });
  }
  Finish<L>(tile, total);
}

// One span of a tile; `sums` is for MergeSpansKernel.
template <class L, class Stored>
void AttendSpanKernel(const AttentionTile& tile, int span, float* sums) {
  const TileScratch scratch(tile);
  const AttentionSums all = AttentionSums::At(sums, tile.tokens * tile.heads, scratch.padded);
  ForEachGroup<L>(tile, scratch, [&](const Group& group) {
    VisitSpan<L, Stored>(group, span, all.From(group.first));
  });
}

// The sums of the spans of a tile, first span first, `stride` floats apart, joined in that
// order.
template <class L>
void MergeSpansKernel(const AttentionTile& tile, float* sums, int64_t stride) {
  const TileScratch scratch(tile);
  const int queries = tile.tokens * tile.heads;
  const AttentionSums total = AttentionSums::At(scratch.total, queries, scratch.padded);
  Clear<L>(total, queries, queries);
  for (int span = FirstSpan(tile); span < EndSpan(tile); ++span) {
    MergeSpan<L>(AttentionSums::At(sums, queries, scratch.padded), total, queries);
    sums += stride;
  }
  Finish<L>(tile, total);
}

}  // namespace
}  // namespace sauva
