#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/kv_block.inc.h"
#include "kernels/cpu/lane_math.inc.h"
#include "kernels/numerics.h"

// What a block of 16 keys adds to a few queries: scores, weights, weighted values. Keys are
// transposed, so virtual lane i of each dot product is a register of 16 keys, and the tree
// at the end adds registers.
namespace sauva {
namespace {

constexpr float kNoScore = -__builtin_inff();

// The keys [first, end) of one block that a query sees.
struct KeyRange {
  int first, end;
  bool whole() const { return first == 0 && end == kAttentionBlock; }
  bool empty() const { return first >= end; }
  bool operator==(const KeyRange&) const = default;
};

inline int Between0And16(int x) { return x < 0 ? 0 : x > kAttentionBlock ? kAttentionBlock : x; }

inline KeyRange VisibleKeys(int position, int window, int block) {
  const int start = block * kAttentionBlock;
  const int first = window == 0 ? 0 : position - window + 1 - start;
  return {Between0And16(first), Between0And16(position + 1 - start)};
}

// What scoring a block left to be done with its values, for up to kMost queries.
template <class Block>
struct Pending {
  static constexpr int kMost = 8;
  float weights[kMost][kAttentionBlock];
  float factors[kLanes];   // that move the sums to the new maxima, if `rescale`
  KeyRange ranges[kMost];  // seen keys, unless all queries see all
  Block block;
  uint32_t without;  // bit n: query n has no score yet
  bool waits;        // else nothing is left to do
  bool rescale, whole;
};

// Memory to read ahead of its use, a bit at a time: in one go it would stand in the way. To L2,
// which waits for more lines at a time than L1 does.
struct Ahead {
  const unsigned char* bytes = nullptr;
  int64_t step = 0;  // bytes of a part

  void Fetch(int part) const {
    const unsigned char* end = bytes + step * (part + 1);
    for (const unsigned char* at = bytes + step * part; at < end; at += 64) {
      __builtin_prefetch(at, 0, 2);
    }
  }
};

// How the next block is read ahead: its keys, in kKeyParts, while the block at hand is scored, its
// values while values are added, with each two registers of them.
struct BlockAhead {
  static constexpr int kKeyParts = 8;
  Ahead keys, values;

  static BlockAhead Of(int64_t block_bytes, int padded) {
    const int64_t key_bytes = block_bytes / 2;
    const int parts = padded < 4 * kLanes ? 1 : padded / (2 * kLanes);
    return {{nullptr, key_bytes / kKeyParts}, {nullptr, (block_bytes - key_bytes) / parts}};
  }
  BlockAhead At(const unsigned char* block, int64_t block_bytes) const {
    return {{block, keys.step}, {block + block_bytes / 2, values.step}};
  }
};

// kQueries queries, next to one another, on their way through a span. The first kQueries
// lanes of `largest` and `weight` are theirs.
struct QueryRun {
  const float* queries;  // [head_dim, kQueries]
  float* largest;        // [16]
  float* weight;         // [16]
  float* sums;           // [kQueries, padded]
};

// Lanes i and i + 8 of the dot products, added, then joined with `joins` sums of other lanes, which
// wait in levels[0] and on, and left in levels[joins]. By itself, because compilers that see where
// the sums come from run out of registers.
template <class L, int kQueries, class Block>
[[gnu::noinline]] void ScorePair(const float* queries, const Block& block, int head_dim, int i,
                                 int joins, L (*levels)[kQueries]) {
  L low[kQueries], high[kQueries];
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) low[n] = high[n] = L::Zero();
  int d = i;
  for (; d + kLanes / 2 < head_dim; d += kLanes) {
    const float* q = queries + d * kQueries;
    const L low_keys = block.Keys(d);
    const L high_keys = block.Keys(d + kLanes / 2);
#pragma GCC unroll 8
    for (int n = 0; n < kQueries; ++n) {
      low[n] = L::Fma(L::Set(q[n]), low_keys, low[n]);
      high[n] = L::Fma(L::Set(q[kLanes / 2 * kQueries + n]), high_keys, high[n]);
    }
  }
  if (d < head_dim) {
    const L last_keys = block.Keys(d);
#pragma GCC unroll 8
    for (int n = 0; n < kQueries; ++n) {
      low[n] = L::Fma(L::Set(queries[d * kQueries + n]), last_keys, low[n]);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) low[n] = L::Add(low[n], high[n]);
  for (int level = 0; level < joins; ++level) {
#pragma GCC unroll 8
    for (int n = 0; n < kQueries; ++n) low[n] = L::Add(levels[level][n], low[n]);
  }
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) levels[joins][n] = low[n];
}

// Dot products of the queries with the 16 keys of a block, left in levels[3]: the lanes are added
// as the tree does, each sum as soon as both its parts are there.
template <class L, int kQueries, class Block>
inline void Scores(const float* queries, const Block& block, int head_dim, const Ahead& ahead,
                   L (&levels)[4][kQueries]) {
  constexpr int kLane[BlockAhead::kKeyParts] = {0, 4, 2, 6, 1, 5, 3, 7};
  constexpr int kJoins[BlockAhead::kKeyParts] = {0, 1, 0, 2, 0, 1, 0, 3};
  for (int part = 0; part < BlockAhead::kKeyParts; ++part) {
    ahead.Fetch(part);
    ScorePair<L, kQueries>(queries, block, head_dim, kLane[part], kJoins[part], levels);
  }
}

template <class L, int kQueries>
inline L LargestOfEach(const L x[kQueries]) {
  if constexpr (kQueries == 8) {
    return L::Largest8(x);
  } else {
    float largest[kLanes] = {};
    for (int n = 0; n < kQueries; ++n) largest[n] = L::Largest(x[n]);
    return L::Load(largest);
  }
}

template <class L, int kQueries>
inline L SumOfEach(const L x[kQueries]) {
  if constexpr (kQueries == 8) {
    return L::Sum8(x);
  } else {
    float sum[kLanes] = {};
    for (int n = 0; n < kQueries; ++n) sum[n] = L::Sum(x[n]);
    return L::Load(sum);
  }
}

// Moves the queries to their new maxima, if any score is one.
template <class L, int kQueries, class Block>
inline L Rescale(const QueryRun& run, const L scores[kQueries], Pending<Block>& pending) {
  constexpr uint32_t kAll = (1u << kQueries) - 1;
  const L one = L::Set(1.0f);
  const L none = L::Set(kNoScore);
  const L before = L::Load(run.largest);
  pending.rescale = false;
  pending.without = L::EqualBits(before, none) & kAll;
  uint32_t above = pending.without;
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) above |= L::AboveBits(scores[n], L::Set(run.largest[n]));
  if (above == 0) return one;  // mostly, once a query has seen a few blocks
  const L largest = L::Max(before, LargestOfEach<L, kQueries>(scores));
  pending.without = L::EqualBits(largest, none) & kAll;
  pending.rescale = (L::EqualBits(before, largest) & kAll) != kAll;
  if (!pending.rescale) return one;
  const L moved = L::IfEqual(before, largest, one, ExpLanes<L>(L::Subtract(before, largest)));
  const L rescale = L::IfEqual(largest, none, one, moved);
  rescale.Store(pending.factors);
  largest.Store(run.largest);
  return rescale;
}

// Turns scores into weights.
template <class L, int kQueries, class Block>
inline void Weigh(const QueryRun& run, const L scores[kQueries], Pending<Block>& pending) {
  const L rescale = Rescale<L, kQueries>(run, scores, pending);
  L weight[kQueries];
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) {
    weight[n] = ExpLanes<L>(L::Subtract(scores[n], L::Set(run.largest[n])));
    weight[n].Store(pending.weights[n]);
  }
  const L total = L::Load(run.weight);
  const L added = L::Fma(total, rescale, SumOfEach<L, kQueries>(weight));
  L::IfEqual(L::Load(run.largest), L::Set(kNoScore), total, added).Store(run.weight);
}

// Adds the weighted values of keys [range.first, range.end) to the sums of kQueries queries
// from `query` on, kChunks * 16 dims of each from `d` on.
template <class L, int kQueries, int kChunks, class Block>
inline void AddValueChunks(const Pending<Block>& pending, int query, KeyRange range, int d,
                           float* sums, int padded) {
  L sum[kQueries][kChunks];
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) {
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c) sum[n][c] = L::Load(sums + n * padded + d + c * kLanes);
  }
  if (pending.rescale) {
#pragma GCC unroll 8
    for (int n = 0; n < kQueries; ++n) {
      const L factor = L::Set(pending.factors[query + n]);
#pragma GCC unroll 4
      for (int c = 0; c < kChunks; ++c) sum[n][c] = L::Multiply(sum[n][c], factor);
    }
  }
  for (int j = range.first; j < range.end; ++j) {
    L value[kChunks];
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c) {
      value[c] = pending.block.Values(j, d + c * kLanes);
    }
#pragma GCC unroll 8
    for (int n = 0; n < kQueries; ++n) {
      const float* weight = &pending.weights[query + n][j];
#pragma GCC unroll 4
      for (int c = 0; c < kChunks; ++c) sum[n][c] = L::FmaOf(weight, value[c], sum[n][c]);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) {
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c) sum[n][c].Store(sums + n * padded + d + c * kLanes);
  }
}

template <class L, int kQueries, class Block>
inline void AddValues(const Pending<Block>& pending, int query, KeyRange range, float* sums,
                      int padded, const Ahead& ahead = {}) {
  int d = 0;
  for (; d + 2 * kLanes <= padded; d += 2 * kLanes) {
    ahead.Fetch(d / kLanes / 2);
    AddValueChunks<L, kQueries, 2>(pending, query, range, d, sums, padded);
  }
  if (d < padded) AddValueChunks<L, kQueries, 1>(pending, query, range, d, sums, padded);
}

// Scores a block for kQueries queries, of which query n sees the keys ranges[n], or all see
// all when `ranges` is null. What is not seen may hold anything: it has no score, and
// FinishBlock does not read its values. The block is that of `pending`.
template <class L, int kQueries, class Block>
inline void ScoreBlock(const QueryRun& run, int head_dim, float score_scale, const KeyRange* ranges,
                       const Ahead& ahead, Pending<Block>& pending) {
  L levels[4][kQueries];
  Scores<L, kQueries>(run.queries, pending.block, head_dim, ahead, levels);
  L(&scores)[kQueries] = levels[3];
  const L scale = L::Set(score_scale);
#pragma GCC unroll 8
  for (int n = 0; n < kQueries; ++n) scores[n] = L::Multiply(scores[n], scale);
  pending.whole = ranges == nullptr;
  for (int n = 0; ranges != nullptr && n < kQueries; ++n) {
    scores[n] = L::Range(scores[n], ranges[n].first, ranges[n].end, kNoScore);
    pending.ranges[n] = ranges[n];
  }
  Weigh<L, kQueries>(run, scores, pending);
}

// Adds the values of the block that was scored last but not added yet, if any.
template <class L, int kQueries, class Block>
inline void FinishBlock(const QueryRun& run, int padded, Pending<Block>& pending,
                        const Ahead& ahead = {}) {
  if (!pending.waits) return;
  constexpr KeyRange kAllKeys{0, kAttentionBlock};
  bool same = true;
  for (int n = 1; !pending.whole && n < kQueries; ++n) {
    same = same && pending.ranges[n] == pending.ranges[0];
  }
  if (same && pending.without == 0) {
    AddValues<L, kQueries>(pending, 0, pending.whole ? kAllKeys : pending.ranges[0], run.sums,
                           padded, ahead);
  } else {
    for (int n = 0; n < kQueries; ++n) {
      const KeyRange range = pending.whole ? kAllKeys : pending.ranges[n];
      if ((pending.without >> n & 1) != 0 || range.empty()) continue;
      AddValues<L, 1>(pending, n, range, run.sums + n * padded, padded);
    }
  }
  pending.waits = false;
}

}  // namespace
}  // namespace sauva
