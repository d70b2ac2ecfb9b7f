#pragma once

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lane_math.inc.h"
#include "kernels/cpu/storage.inc.h"
#include "kernels/numerics.h"

// Attention over paged keys and values. A key block is stored transposed, [head_dim, 16
// keys], so that its 16 scores fill the lanes: virtual lane i of each dot product is then
// a whole register, and the tree at the end adds registers.
namespace sauva {
namespace {

constexpr float kNoScore = -__builtin_inff();

// What one query has summed up: in the current span, and over the spans before it.
struct QueryState {
  float span_largest, span_weight, largest, weight;
};
static_assert(sizeof(QueryState) == kAttentionStateFloats * sizeof(float));

// A tile with its scratch laid out.
template <class S>
struct Attending {
  explicit Attending(const AttentionTile& t)
      : tile(t),
        queries(t.tokens * t.heads),
        padded((t.head_dim + kLanes - 1) / kLanes * kLanes),
        states(reinterpret_cast<QueryState*>(t.scratch)),
        span_sums(t.scratch + queries * kAttentionStateFloats),
        sums(span_sums + int64_t{queries} * padded) {}

  const float* query(int q) const {
    return tile.queries + q / tile.heads * tile.query_stride + q % tile.heads * tile.head_dim;
  }
  float* out(int q) const {
    return tile.out + q / tile.heads * tile.out_stride + q % tile.heads * tile.head_dim;
  }
  int position(int q) const { return tile.first_position + q / tile.heads; }
  float* span_sum(int q) const { return span_sums + int64_t{q} * padded; }
  float* sum(int q) const { return sums + int64_t{q} * padded; }
  const typename S::Element* keys(int block) const {
    return reinterpret_cast<const typename S::Element*>(tile.cache + int64_t{tile.blocks[block]} *
                                                                         tile.block_stride);
  }

  const AttentionTile& tile;
  const int queries;
  const int padded;  // head_dim in whole lanes
  QueryState* const states;
  float* const span_sums;  // [queries, padded]
  float* const sums;       // [queries, padded]
};

// The keys [first, end) of one block that a query sees.
struct KeyRange {
  int first, end;
  bool whole() const { return first == 0 && end == kAttentionBlock; }
};

template <class S>
inline KeyRange VisibleKeys(const Attending<S>& a, int query, int block) {
  const int start = block * kAttentionBlock;
  const int position = a.position(query);
  int first = a.tile.window == 0 ? 0 : position - a.tile.window + 1 - start;
  int end = position + 1 - start;
  first = first < 0 ? 0 : first;
  end = end > kAttentionBlock ? kAttentionBlock : end;
  return {first, end};
}

// Adds dims base, base + 4, base + 8 and base + 12, those below head_dim, to their lanes.
template <class L, class S, int kQueries>
inline void ScoreStep(const typename S::Element* keys, const float* const q[kQueries], int base,
                      int count, L lane[kQueries][4]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    if (j >= count) return;
    const int d = base + 4 * j;
    const L key = S::Load(keys + int64_t{d} * kAttentionBlock);
#pragma GCC unroll 4
    for (int n = 0; n < kQueries; ++n) lane[n][j] = L::Fma(L::Set(q[n][d]), key, lane[n][j]);
  }
}

// Dot products of kQueries queries with the 16 keys of a block.
template <class L, class S, int kQueries>
inline void Scores(const Attending<S>& a, int query, const typename S::Element* keys,
                   L scores[kQueries]) {
  const int head_dim = a.tile.head_dim;
  const int whole = head_dim / kLanes * kLanes;
  const float* q[kQueries];
  for (int i = 0; i < kQueries; ++i) q[i] = a.query(query + i);
  L quarter[kQueries][4];  // virtual lanes i, i+4, i+8, i+12 added as the tree does
  for (int i = 0; i < 4; ++i) {
    L lane[kQueries][4];
#pragma GCC unroll 4
    for (int n = 0; n < kQueries; ++n) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) lane[n][j] = L::Zero();
    }
    for (int base = i; base < whole; base += kLanes) {
      ScoreStep<L, S, kQueries>(keys, q, base, 4, lane);
    }
    if (whole + i < head_dim) {
      ScoreStep<L, S, kQueries>(keys, q, whole + i, (head_dim - whole - i + 3) / 4, lane);
    }
#pragma GCC unroll 4
    for (int n = 0; n < kQueries; ++n) {
      quarter[n][i] = L::Add(L::Add(lane[n][0], lane[n][2]), L::Add(lane[n][1], lane[n][3]));
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < kQueries; ++n) {
    const L dot =
        L::Add(L::Add(quarter[n][0], quarter[n][2]), L::Add(quarter[n][1], quarter[n][3]));
    scores[n] = L::Multiply(dot, L::Set(a.tile.score_scale));
  }
}

template <class L>
inline void ScaleRow(float* row, int padded, float factor) {
  const L by = L::Set(factor);
  for (int d = 0; d < padded; d += kLanes) L::Multiply(L::Load(row + d), by).Store(row + d);
}

inline float LargerOf(float a, float b) { return a > b ? a : b; }

template <class L>
inline float RescaleFactor(float from, float to) {
  return from == to ? 1.0f : ExpOne<L>(from - to);
}

// Moves a query's span to the new maximum and turns scores into weights. False when no
// score counts.
template <class L, class S>
inline bool Weigh(const Attending<S>& a, int query, L scores, float* weights) {
  QueryState& state = a.states[query];
  const float largest = LargerOf(state.span_largest, L::Largest(scores));
  if (largest == kNoScore) return false;
  const float rescale = RescaleFactor<L>(state.span_largest, largest);
  const L weight = ExpLanes<L>(L::Subtract(scores, L::Set(largest)));
  weight.Store(weights);
  state.span_weight = __builtin_fmaf(state.span_weight, rescale, L::Sum(weight));
  state.span_largest = largest;
  if (rescale != 1.0f) ScaleRow<L>(a.span_sum(query), a.padded, rescale);
  return true;
}

// Adds the weighted values of keys [range.first, range.end) to kQueries sums, kChunks * 16
// dims from `d` on.
template <class L, class S, int kQueries, int kChunks>
inline void AddValueChunks(const Attending<S>& a, int query, const typename S::Element* values,
                           KeyRange range, int d, const float (*weights)[kAttentionBlock]) {
  const int head_dim = a.tile.head_dim;
  L sum[kQueries][kChunks];
#pragma GCC unroll 4
  for (int n = 0; n < kQueries; ++n) {
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c) sum[n][c] = L::Load(a.span_sum(query + n) + d + c * kLanes);
  }
  for (int j = range.first; j < range.end; ++j) {
    const typename S::Element* value = values + j * head_dim + d;
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c) {
      const int left = head_dim - d - c * kLanes;
      const L v =
          left >= kLanes ? S::Load(value + c * kLanes) : S::LoadPartial(value + c * kLanes, left);
#pragma GCC unroll 4
      for (int n = 0; n < kQueries; ++n) sum[n][c] = L::Fma(L::Set(weights[n][j]), v, sum[n][c]);
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < kQueries; ++n) {
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c) sum[n][c].Store(a.span_sum(query + n) + d + c * kLanes);
  }
}

template <class L, class S, int kQueries>
inline void AddValues(const Attending<S>& a, int query, const typename S::Element* values,
                      KeyRange range, const float (*weights)[kAttentionBlock]) {
  int d = 0;
  for (; d + 4 * kLanes <= a.tile.head_dim; d += 4 * kLanes) {
    AddValueChunks<L, S, kQueries, 4>(a, query, values, range, d, weights);
  }
  for (; d < a.tile.head_dim; d += kLanes) {
    AddValueChunks<L, S, kQueries, 1>(a, query, values, range, d, weights);
  }
}

// kQueries queries that all see the whole block.
template <class L, class S, int kQueries>
inline void VisitWhole(const Attending<S>& a, int query, int block) {
  const typename S::Element* keys = a.keys(block);
  const typename S::Element* values = keys + int64_t{a.tile.head_dim} * kAttentionBlock;
  constexpr KeyRange kAll{0, kAttentionBlock};
  L scores[kQueries];
  Scores<L, S, kQueries>(a, query, keys, scores);
  float weights[kQueries][kAttentionBlock];
  bool counts[kQueries];
  bool all_count = true;
  for (int n = 0; n < kQueries; ++n) {
    counts[n] = Weigh<L, S>(a, query + n, scores[n], weights[n]);
    all_count = all_count && counts[n];
  }
  if (all_count) return AddValues<L, S, kQueries>(a, query, values, kAll, weights);
  for (int n = 0; n < kQueries; ++n) {
    if (counts[n]) AddValues<L, S, 1>(a, query + n, values, kAll, weights + n);
  }
}

// One query that sees some keys of the block. The others have no score, hence weight 0,
// and their values, which may be anything, are not read.
template <class L, class S>
inline void VisitPart(const Attending<S>& a, int query, int block, KeyRange range) {
  const typename S::Element* keys = a.keys(block);
  const typename S::Element* values = keys + int64_t{a.tile.head_dim} * kAttentionBlock;
  L score[1];
  Scores<L, S, 1>(a, query, keys, score);
  float weights[1][kAttentionBlock];
  const L visible = L::Range(score[0], range.first, range.end, kNoScore);
  if (Weigh<L, S>(a, query, visible, weights[0])) {
    AddValues<L, S, 1>(a, query, values, range, weights);
  }
}

template <class L, class S>
inline void VisitBlock(const Attending<S>& a, int block) {
  int query = 0;
  while (query < a.queries) {
    // Visibility changes from token to token only, so the ends of a run tell all of it.
    const int last = query + L::kQueries - 1;
    if (last < a.queries && VisibleKeys(a, query, block).whole() &&
        VisibleKeys(a, last, block).whole()) {
      VisitWhole<L, S, L::kQueries>(a, query, block);
      query += L::kQueries;
      continue;
    }
    const KeyRange range = VisibleKeys(a, query, block);
    if (range.first < range.end) VisitPart<L, S>(a, query, block, range);
    ++query;
  }
}

template <class L, class S>
inline void StartSpan(const Attending<S>& a) {
  for (int q = 0; q < a.queries; ++q) {
    a.states[q].span_largest = kNoScore;
    a.states[q].span_weight = 0;
  }
  for (int64_t i = 0; i < int64_t{a.queries} * a.padded; i += kLanes) {
    L::Zero().Store(a.span_sums + i);
  }
}

template <class L, class S>
inline void MergeSpan(const Attending<S>& a) {
  for (int q = 0; q < a.queries; ++q) {
    QueryState& state = a.states[q];
    if (state.span_largest == kNoScore) continue;
    const float largest = LargerOf(state.largest, state.span_largest);
    const float keep = RescaleFactor<L>(state.largest, largest);
    const float join = RescaleFactor<L>(state.span_largest, largest);
    state.weight = __builtin_fmaf(state.weight, keep, state.span_weight * join);
    state.largest = largest;
    for (int d = 0; d < a.padded; d += kLanes) {
      float* sum = a.sum(q) + d;
      const L joined = L::Multiply(L::Load(a.span_sum(q) + d), L::Set(join));
      L::Fma(L::Load(sum), L::Set(keep), joined).Store(sum);
    }
  }
}

template <class L, class S>
inline void Finish(const Attending<S>& a) {
  for (int q = 0; q < a.queries; ++q) {
    const L weight = L::Set(a.states[q].weight);
    for (int d = 0; d < a.tile.head_dim; d += kLanes) {
      const L result = L::Divide(L::Load(a.sum(q) + d), weight);
      result.StorePartial(a.out(q) + d, a.tile.head_dim - d);
    }
  }
}

template <class L, class S>
void AttendKernel(const AttentionTile& tile) {
  constexpr int kBlocksPerSpan = kAttentionSpan / kAttentionBlock;
  const Attending<S> a(tile);
  for (int q = 0; q < a.queries; ++q) {
    a.states[q].largest = kNoScore;
    a.states[q].weight = 0;
  }
  for (int64_t i = 0; i < int64_t{a.queries} * a.padded; ++i) a.sums[i] = 0;
  // Fully masked blocks change no bit, so only the visible ones are visited.
  const int oldest = tile.window == 0 ? 0 : tile.first_position - tile.window + 1;
  const int first_block = oldest < 0 ? 0 : oldest / kAttentionBlock;
  const int last_block = (tile.first_position + tile.tokens - 1) / kAttentionBlock;
  for (int block = first_block; block <= last_block;) {
    const int span_end = (block / kBlocksPerSpan + 1) * kBlocksPerSpan;
    StartSpan<L, S>(a);
    for (; block < span_end && block <= last_block; ++block) VisitBlock<L, S>(a, block);
    MergeSpan<L, S>(a);
  }
  Finish<L, S>(a);
}

template <class L, class S>
void WriteKvKernel(const KvSlot& slot) {
  auto* keys = static_cast<typename S::Element*>(slot.block);
  auto* values = keys + int64_t{slot.head_dim} * kAttentionBlock + slot.token * slot.head_dim;
  for (int d = 0; d < slot.head_dim; d += kLanes) {
    const int count = slot.head_dim - d < kLanes ? slot.head_dim - d : kLanes;
    typename S::Element key[kLanes], value[kLanes];
    S::Store(L::LoadPartial(slot.key + d, count), key);
    S::Store(L::LoadPartial(slot.value + d, count), value);
    for (int i = 0; i < count; ++i) {
      keys[(d + i) * kAttentionBlock + slot.token] = key[i];
      values[d + i] = value[i];
    }
  }
}

}  // namespace
}  // namespace sauva
