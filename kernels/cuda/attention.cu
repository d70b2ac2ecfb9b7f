#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/element_types.h"

// One block of threads serves a tile: up to kQueries queries of one sequence that read the
// same KV head, of several heads, tokens or both. It takes a span of 512 positions through
// four phases (scores, maxima, weights, values) and merges it into what came before. Each
// phase is parallel where the contract leaves freedom and in order where it does not.
namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kHalfWarps = kThreads / kLanes;
constexpr int kSpanBlocks = kAttentionSpan / kAttentionBlock;
constexpr float kInfinity = __builtin_huge_valf();

// How the queries of a step are cut into tiles.
struct Tiles {
  int heads = 1;             // per tile, of those that share a KV head
  int tokens = 1;            // per tile
  int per_kv_head = 1;       // tiles over the heads of a KV head
  bool spans_apart = false;  // a block computes one span and leaves it in partials
};

struct Tile {
  int token = 0;  // first row
  int head = 0;   // first head
  int kv_head = 0;
  int heads = 0;  // the queries are heads of `head`… of tokens of `token`…
  int queries = 0;
  int first_position = 0;  // of the first token
  int lowest = 0;          // positions that any query sees
  int highest = 0;
  const int32_t* blocks = nullptr;
};

// A block's shared memory.
template <int kQueries>
struct Shared {
  float* queries;        // [kQueries, 16 lanes, steps]
  float* totals;         // [kQueries, padded dim]
  float* weights;        // [kQueries, 512]: scores, then e^(score - largest)
  float* largest;        // [kQueries, 32]: of a block, then of all up to it
  float* rescale;        // [kQueries, 32]
  float* sums;           // [kQueries, 32]
  float* span_largest;   // [kQueries]
  float* span_weight;    // [kQueries]
  float* total_largest;  // [kQueries]
  float* total_weight;   // [kQueries]
  float* keep;           // [kQueries]
  float* join;           // [kQueries]

  static constexpr int Bytes(int padded_dim) {
    return kQueries * (2 * padded_dim + kAttentionSpan + 3 * kSpanBlocks + 6) * 4;
  }
  __device__ explicit Shared(int padded_dim) {
    queries = reinterpret_cast<float*>(DynamicShared());
    totals = queries + kQueries * padded_dim;
    weights = totals + kQueries * padded_dim;
    largest = weights + kQueries * kAttentionSpan;
    rescale = largest + kQueries * kSpanBlocks;
    sums = rescale + kQueries * kSpanBlocks;
    span_largest = sums + kQueries * kSpanBlocks;
    span_weight = span_largest + kQueries;
    total_largest = span_weight + kQueries;
    total_weight = total_largest + kQueries;
    keep = total_weight + kQueries;
    join = keep + kQueries;
  }
};

__device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int LaneOfHalf() { return Thread() % kLanes; }
__device__ __forceinline__ int HalfWarp() { return Thread() / kLanes; }

__device__ __forceinline__ float Rescale(float from, float to) {
  return from == to ? 1.0f : Exp(from - to);
}

// False when no tile begins at this block's token.
__device__ bool FindTile(const AttentionLaunch& args, const Tiles& tiles, Tile& tile) {
  tile.token = static_cast<int>(blockIdx.x);
  const int sequence = args.step.sequence_rows[tile.token];
  if (sequence < 0) return false;  // padding
  const int first = args.step.first_tokens[sequence];
  if ((tile.token - first) % tiles.tokens != 0) return false;
  const int left = args.step.first_tokens[sequence + 1] - tile.token;
  const int tokens = left < tiles.tokens ? left : tiles.tokens;
  const int heads_per_kv_head = args.num_heads / args.cache.num_kv_heads;
  tile.kv_head = static_cast<int>(blockIdx.y) / tiles.per_kv_head;
  const int skipped = static_cast<int>(blockIdx.y) % tiles.per_kv_head * tiles.heads;
  tile.head = tile.kv_head * heads_per_kv_head + skipped;
  tile.heads =
      heads_per_kv_head - skipped < tiles.heads ? heads_per_kv_head - skipped : tiles.heads;
  tile.queries = tokens * tile.heads;
  tile.first_position = args.step.positions[tile.token];
  tile.highest = tile.first_position + tokens - 1;
  tile.lowest = args.window == 0 || tile.first_position < args.window
                    ? 0
                    : tile.first_position - args.window + 1;
  tile.blocks = args.blocks.ids + int64_t{sequence} * args.blocks.max_blocks;
  return true;
}

__device__ __forceinline__ bool Sees(const AttentionLaunch& args, const Tile& tile, int query,
                                     int position) {
  const int own = tile.first_position + query / tile.heads;
  return position <= own && (args.window == 0 || position > own - args.window);
}

// Whether keys and values are codes that have a scale.
template <class Cached>
constexpr bool IsCodes() {
  return sizeof(typename Cached::One) == 1;
}

// The tile's KV head in block number `index` of the sequence, counted through the cache.
__device__ __forceinline__ int64_t HeadOfBlock(const AttentionLaunch& args, const Tile& tile,
                                               int index) {
  return int64_t{tile.blocks[index]} * args.cache.num_kv_heads + tile.kv_head;
}

template <int kQueries>
__device__ void LoadQueries(const AttentionLaunch& args, const Tile& tile,
                            const Shared<kQueries>& shared) {
  const int padded = args.cache.padded_dim();
  const int steps = args.cache.steps();
  for (int i = Thread(); i < kQueries * padded; i += kThreads) {
    const int query = i / padded;
    const int d = i % padded;
    float value = 0;
    if (query < tile.queries && d < args.cache.head_dim) {
      const int64_t row = tile.token + query / tile.heads;
      const int head = tile.head + query % tile.heads;
      value = args.queries.data[row * args.queries.stride + head * args.cache.head_dim + d];
    }
    shared.queries[query * padded + d % kLanes * steps + d / kLanes] = value;
    shared.totals[i] = 0;
  }
  if (Thread() < kQueries) {
    shared.total_largest[Thread()] = -kInfinity;
    shared.total_weight[Thread()] = 0;
  }
}

// Adds up sum[query] over 16 lanes for every query at once: in each round of the tree a lane
// gives half of its queries away. Leaves in every lane the total of `query`.
template <int kQueries>
__device__ __forceinline__ float SumOfLanes(float (&sum)[kQueries], int& query) {
  query = 0;
  int width = kLanes / 2;
#pragma unroll
  for (int left = kQueries / 2; left > 0; left /= 2, width /= 2) {
    const bool upper = (LaneOfHalf() & width) != 0;
#pragma unroll
    for (int i = 0; i < left; ++i) {
      const float mine = upper ? sum[i + left] : sum[i];
      const float given = upper ? sum[i] : sum[i + left];
      sum[i] = mine + ShuffleXor(given, width);
    }
    query += upper ? left : 0;
  }
  for (; width > 0; width /= 2) sum[0] = sum[0] + ShuffleXor(sum[0], width);
  return sum[0];
}

// Scores of blocks [first, end) of the span for all queries; -infinity where a key is not
// seen. Keys that no query sees are not read.
template <class Cached, int kQueries, int kVector>
__device__ void Score(const AttentionLaunch& args, const Tile& tile, const Shared<kQueries>& shared,
                      int span, int first, int end) {
  const int steps = args.cache.steps();
  const int padded = args.cache.padded_dim();
  const auto* keys = static_cast<const typename Cached::One*>(args.cache.keys);
  for (int j = first * kAttentionBlock + HalfWarp(); j < end * kAttentionBlock; j += kHalfWarps) {
    const int position = span * kAttentionSpan + j;
    float sum[kQueries] = {};
    if (position >= tile.lowest && position <= tile.highest) {
      const int64_t head = HeadOfBlock(args, tile, position / kAttentionBlock);
      const int in_block = position % kAttentionBlock;
      const typename Cached::One* key =
          keys + (head * kAttentionBlock + in_block) * padded + LaneOfHalf() * steps;
      [[maybe_unused]] const float scale =
          IsCodes<Cached>() ? args.cache.scales[2 * head * kAttentionBlock + in_block] : 1.0f;
      const float* queries = shared.queries + LaneOfHalf() * steps;
      for (int step = 0; step < steps; step += kVector) {
        float k[kVector];
        Load<Cached, kVector>(key + step, k);
        if constexpr (IsCodes<Cached>()) {
#pragma unroll
          for (int v = 0; v < kVector; ++v) k[v] = k[v] * scale;
        }
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
          float x[kVector];
          Load<F32, kVector>(queries + q * padded + step, x);
#pragma unroll
          for (int v = 0; v < kVector; ++v) sum[q] = Fma(x[v], k[v], sum[q]);
        }
      }
    }
    int query;
    const float dot = SumOfLanes(sum, query);
    const bool seen = query < tile.queries && Sees(args, tile, query, position);
    shared.weights[query * kAttentionSpan + j] = seen ? dot * args.score_scale : -kInfinity;
  }
}

// Runs f(query, block, score index) on half-warps, one block of 16 keys each; `active` is
// false for those that only keep the others company.
template <int kQueries, class F>
__device__ void ForEachBlock(const Tile& tile, int first, int end, F f) {
  const int blocks = end - first;
  const int count = tile.queries * blocks;
  for (int base = HalfWarp() / 2 * 2; base < count; base += kHalfWarps) {
    const int wanted = base + HalfWarp() % 2;
    const int index = wanted < count ? wanted : count - 1;
    f(index / blocks, first + index % blocks, wanted < count);
  }
}

// shared.largest becomes the largest score of the span up to each block.
template <int kQueries>
__device__ void FindMaxima(const Tile& tile, const Shared<kQueries>& shared, int first, int end) {
  ForEachBlock<kQueries>(tile, first, end, [&](int query, int block, bool active) {
    const int key = block * kAttentionBlock + LaneOfHalf();
    const float largest = TreeMax(shared.weights[query * kAttentionSpan + key]);
    if (active && LaneOfHalf() == 0) shared.largest[query * kSpanBlocks + block] = largest;
  });
  SyncThreads();
  if (Thread() < tile.queries) {
    float* largest = shared.largest + Thread() * kSpanBlocks;
    float running = -kInfinity;
    for (int block = first; block < end; ++block) {
      running = Larger(running, largest[block]);
      largest[block] = running;
    }
    shared.span_largest[Thread()] = running;
  }
  SyncThreads();
}

// shared.weights becomes e^(score - largest); sums and rescale of each block follow, and
// the span's weight.
template <int kQueries>
__device__ void Weigh(const Tile& tile, const Shared<kQueries>& shared, int first, int end) {
  ForEachBlock<kQueries>(tile, first, end, [&](int query, int block, bool active) {
    const float* largest = shared.largest + query * kSpanBlocks;
    const int key = block * kAttentionBlock + LaneOfHalf();
    float& weight = shared.weights[query * kAttentionSpan + key];
    const float e = Exp(weight - largest[block]);
    const float sum = TreeSum(e);
    if (!active) return;
    weight = e;
    if (LaneOfHalf() != 0) return;
    const float before = block > first ? largest[block - 1] : -kInfinity;
    shared.rescale[query * kSpanBlocks + block] = Rescale(before, largest[block]);
    shared.sums[query * kSpanBlocks + block] = sum;
  });
  SyncThreads();
  if (Thread() < tile.queries) {
    const int at = Thread() * kSpanBlocks;
    float weight = 0;
    for (int block = first; block < end; ++block) {
      if (shared.largest[at + block] == -kInfinity) continue;
      weight = Fma(weight, shared.rescale[at + block], shared.sums[at + block]);
    }
    shared.span_weight[Thread()] = weight;
  }
}

// sum[q] becomes the span's weighted sum of element d of the values.
template <class Cached, int kQueries>
__device__ void SumValues(const AttentionLaunch& args, const Tile& tile,
                          const Shared<kQueries>& shared, int span, int first, int end, int d,
                          float (&sum)[kQueries]) {
  const auto* values = static_cast<const typename Cached::One*>(args.cache.values);
  const int padded = args.cache.padded_dim();
  for (int block = first; block < end; ++block) {
    const int position = span * kAttentionSpan + block * kAttentionBlock;
    const int64_t head = HeadOfBlock(args, tile, position / kAttentionBlock);
    const typename Cached::One* value = values + head * kAttentionBlock * padded + d;
    [[maybe_unused]] const float* scales =
        IsCodes<Cached>() ? args.cache.scales + (2 * head + 1) * kAttentionBlock : nullptr;
    float v[kAttentionBlock];
#pragma unroll
    for (int j = 0; j < kAttentionBlock; ++j) {
      const bool inside = position + j >= tile.lowest && position + j <= tile.highest;
      v[j] = inside ? Cached::Widen(value[j * padded]) : 0.0f;
      if constexpr (IsCodes<Cached>()) {
        if (inside) v[j] = v[j] * scales[j];
      }
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      if (q >= tile.queries || shared.largest[q * kSpanBlocks + block] == -kInfinity) continue;
      const float* weight = shared.weights + q * kAttentionSpan + block * kAttentionBlock;
      float a = sum[q] * shared.rescale[q * kSpanBlocks + block];
#pragma unroll
      for (int j = 0; j < kAttentionBlock; ++j) {
        if (Sees(args, tile, q, position + j)) a = Fma(weight[j], v[j], a);
      }
      sum[q] = a;
    }
  }
}

// The factors by which the total and the span join; the total's maximum and weight follow.
template <int kQueries>
__device__ void JoinWeights(const Tile& tile, const Shared<kQueries>& shared) {
  const int q = Thread();
  if (q >= tile.queries || shared.span_largest[q] == -kInfinity) return;
  const float largest = Larger(shared.total_largest[q], shared.span_largest[q]);
  shared.keep[q] = Rescale(shared.total_largest[q], largest);
  shared.join[q] = Rescale(shared.span_largest[q], largest);
  shared.total_weight[q] =
      Fma(shared.total_weight[q], shared.keep[q], shared.span_weight[q] * shared.join[q]);
  shared.total_largest[q] = largest;
}

// Takes one span through its phases and merges it into the totals, or leaves it apart.
template <class Cached, int kQueries, int kVector>
__device__ void VisitSpan(const AttentionLaunch& args, const Tiles& tiles, const Tile& tile,
                          const Shared<kQueries>& shared, int span) {
  const int start = span * kAttentionSpan;
  const int lowest = tile.lowest > start ? tile.lowest - start : 0;
  const int highest =
      tile.highest - start < kAttentionSpan - 1 ? tile.highest - start : kAttentionSpan - 1;
  const int first = lowest / kAttentionBlock;
  const int end = highest / kAttentionBlock + 1;
  Score<Cached, kQueries, kVector>(args, tile, shared, span, first, end);
  SyncThreads();
  FindMaxima(tile, shared, first, end);
  Weigh(tile, shared, first, end);
  if (!tiles.spans_apart) JoinWeights(tile, shared);
  SyncThreads();
  const int padded = args.cache.padded_dim();
  for (int d = Thread(); d < args.cache.head_dim; d += kThreads) {
    float sum[kQueries] = {};
    SumValues<Cached, kQueries>(args, tile, shared, span, first, end, d, sum);
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      if (q >= tile.queries) continue;
      float& total = shared.totals[q * padded + d];
      if (tiles.spans_apart) {
        total = sum[q];
      } else if (shared.span_largest[q] != -kInfinity) {
        total = Fma(total, shared.keep[q], sum[q] * shared.join[q]);
      }
    }
  }
  SyncThreads();
}

// A span that is to be merged: its maximum, its weight and its sums.
__device__ __forceinline__ float* PartialOf(const AttentionLaunch& args, int64_t row, int head,
                                            int span) {
  return args.partials + MergeFloats(1, 1, (row * args.num_heads + head) * args.num_spans + span,
                                     args.cache.head_dim);
}

template <class Cached, int kQueries, int kVector>
__global__ void __launch_bounds__(kThreads, 3) Attend(AttentionLaunch args, Tiles tiles) {
  Tile tile;
  if (!FindTile(args, tiles, tile)) return;
  const int dim = args.cache.head_dim;
  const int padded = args.cache.padded_dim();
  const Shared<kQueries> shared(padded);
  LoadQueries(args, tile, shared);
  SyncThreads();
  const int first_span = tile.lowest / kAttentionSpan;
  const int last_span = tile.highest / kAttentionSpan;
  if (!tiles.spans_apart) {
    for (int span = first_span; span <= last_span; ++span) {
      VisitSpan<Cached, kQueries, kVector>(args, tiles, tile, shared, span);
    }
    for (int i = Thread(); i < tile.queries * dim; i += kThreads) {
      const int q = i / dim;
      const int64_t row = tile.token + q / tile.heads;
      args.out.data[row * args.out.stride + (tile.head + q % tile.heads) * dim + i % dim] =
          shared.totals[q * padded + i % dim] / shared.total_weight[q];
    }
    return;
  }
  const int span = static_cast<int>(blockIdx.z);
  const bool empty = span < first_span || span > last_span;
  if (!empty) VisitSpan<Cached, kQueries, kVector>(args, tiles, tile, shared, span);
  for (int i = Thread(); i < tile.queries * (dim + 2); i += kThreads) {
    const int q = i / (dim + 2);
    const int element = i % (dim + 2);
    float value = empty ? -kInfinity : shared.span_largest[q];
    if (!empty && element == 1) value = shared.span_weight[q];
    if (!empty && element > 1) value = shared.totals[q * padded + element - 2];
    PartialOf(args, tile.token + q / tile.heads, tile.head + q % tile.heads, span)[element] = value;
  }
}

// Merges the spans of one head of one token in order.
__global__ void MergeSpans(AttentionLaunch args) {
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int dim = args.cache.head_dim;
  for (int d = Thread(); d < dim; d += kThreads) {
    float largest = -kInfinity, weight = 0, total = 0;
    for (int span = 0; span < args.num_spans; ++span) {
      const float* partial = PartialOf(args, row, head, span);
      if (partial[0] == -kInfinity) continue;
      const float now = Larger(largest, partial[0]);
      const float keep = Rescale(largest, now);
      const float join = Rescale(partial[0], now);
      weight = Fma(weight, keep, partial[1] * join);
      total = Fma(total, keep, partial[2 + d] * join);
      largest = now;
    }
    args.out.data[row * args.out.stride + head * dim + d] = total / weight;
  }
}

template <class Cached, int kQueries, int kVector>
void LaunchTiles(const AttentionLaunch& args, Tiles tiles, void* stream) {
  // So few rows that blocks of all spans are needed to fill a device.
  constexpr int kFewBlocks = 512;
  const int heads_per_kv_head = args.num_heads / args.cache.num_kv_heads;
  tiles.heads = heads_per_kv_head < kQueries ? heads_per_kv_head : kQueries;
  tiles.tokens = kQueries / tiles.heads;
  tiles.per_kv_head = (heads_per_kv_head + tiles.heads - 1) / tiles.heads;
  const int grid_y = args.cache.num_kv_heads * tiles.per_kv_head;
  const int rows = args.queries.rows;
  tiles.spans_apart =
      args.num_spans > 1 && rows * grid_y < kFewBlocks &&
      MergeFloats(rows, args.num_heads, args.num_spans, args.cache.head_dim) <= args.partial_floats;
  const auto grid_x = static_cast<unsigned>(rows);
  const auto grid_z = static_cast<unsigned>(tiles.spans_apart ? args.num_spans : 1);
  Launch(Attend<Cached, kQueries, kVector>,
         {.grid = {grid_x, static_cast<unsigned>(grid_y), grid_z},
          .threads = kThreads,
          .shared_bytes = Shared<kQueries>::Bytes(args.cache.padded_dim()),
          .stream = stream},
         args, tiles);
  if (!tiles.spans_apart) return;
  Launch(MergeSpans,
         {.grid = {grid_x, static_cast<unsigned>(args.num_heads), 1},
          .threads = kThreads,
          .stream = stream},
         args);
}

template <class Cached>
void LaunchCached(const AttentionLaunch& args, void* stream) {
  const bool vectors = args.cache.steps() % 4 == 0;
  // A decode step without shared KV heads has one query per tile.
  const bool lone = args.num_heads == args.cache.num_kv_heads && args.decode_only;
  if (lone && vectors) return LaunchTiles<Cached, 1, 4>(args, {}, stream);
  if (vectors) return LaunchTiles<Cached, 8, 4>(args, {}, stream);
  LaunchTiles<Cached, 8, 1>(args, {}, stream);
}

}  // namespace

void LaunchAttention(const AttentionLaunch& args, void* stream) {
  if (args.queries.rows == 0) return;
  if (args.cache.dtype == DType::kF32) return LaunchCached<F32>(args, stream);
  if (args.cache.dtype == DType::kF16) return LaunchCached<F16>(args, stream);
  LaunchCached<I8>(args, stream);
}

}  // namespace sauva::cuda
