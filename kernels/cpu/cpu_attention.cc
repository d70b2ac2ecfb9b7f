#include <algorithm>

#include "base/ceil_divide.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_kv_cache.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/numerics.h"

namespace sauva {
namespace {

size_t Index(DType dtype) {
  if (dtype == DType::kI8) return static_cast<size_t>(KvStorage::kInt8);
  return static_cast<size_t>(dtype == DType::kF16 ? KvStorage::kF16 : KvStorage::kF32);
}

}  // namespace

absl::Status CpuBackend::ReserveAttention() {
  const StepLimits& limits = step_.limits();
  attention_tiles_.resize(static_cast<size_t>(limits.max_sequences) + 1);
  if (attention_dim_ == 0) return absl::OkStatus();
  const AttentionScratchSize size =
      AttentionScratchOf(limits, max_columns_, attention_dim_, pool_.threads());
  attention_floats_ = size.floats;
  ASSIGN_OR_RETURN(attention_scratch_,
                   HostMemory::Allocate(size.floats * pool_.threads() * int64_t{sizeof(float)}));
  ASSIGN_OR_RETURN(attention_spans_,
                   HostMemory::Allocate(size.span_floats * int64_t{sizeof(float)}));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<KvCache>> CpuBackend::AllocateKv(const KvShape& shape) {
  ASSIGN_OR_RETURN(std::unique_ptr<CpuKvCache> cache, CpuKvCache::Create(shape));
  if (shape.head_dim > attention_dim_) {
    attention_dim_ = shape.head_dim;
    RETURN_IF_ERROR(ReserveAttention());
  }
  return cache;
}

void CpuBackend::WriteKv(const WriteKvArgs& args) {
  const auto& cache = static_cast<const CpuKvCache&>(*args.cache);
  const KvShape& shape = cache.shape();
  const auto write = kernels_.write_kv[Index(shape.dtype)];
  constexpr int64_t kCost = 16;  // of an element, in those of a copy
  ForEachRow(args.keys.rows, kCost * args.keys.columns, [&](int row, int) {
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
  });
}

CpuBackend::AttentionPlan CpuBackend::PlanAttention(const AttentionArgs& args) {
  const KvShape& shape = static_cast<const CpuKvCache&>(*args.cache).shape();
  const std::span<const int32_t> first_tokens = step_.first_tokens();
  AttentionPlan plan{.heads = args.num_heads / shape.num_kv_heads};
  const int64_t fair = CeilDivide(int64_t{args.queries.rows} * shape.num_kv_heads,
                                  kTilesPerThread * pool_.threads());
  const int64_t least = CeilDivide(kAttentionGroup, plan.heads);
  const int64_t most = std::max<int64_t>(1, kTileQueries / plan.heads);
  plan.tokens_per_tile = static_cast<int>(std::min(most, std::max(least, fair)));
  for (size_t s = 0; s + 1 < first_tokens.size(); ++s) {
    attention_tiles_[s] = plan.token_tiles;
    const int tokens = first_tokens[s + 1] - first_tokens[s];
    plan.token_tiles += CeilDivide(tokens, plan.tokens_per_tile);
    if (tokens == 0) continue;
    const int last = step_.positions()[static_cast<size_t>(first_tokens[s + 1]) - 1];
    plan.most_spans = std::max(plan.most_spans, last / kAttentionSpan + 1);
  }
  const int64_t tiles = plan.token_tiles * shape.num_kv_heads;
  const int64_t queries = std::min<int64_t>(plan.tokens_per_tile, args.queries.rows) * plan.heads;
  plan.span_floats = AttentionSumFloats(queries, shape.head_dim);
  const int64_t needed = tiles * plan.most_spans * plan.span_floats * int64_t{sizeof(float)};
  plan.split = tiles < kTilesPerThread * pool_.threads() && pool_.threads() > 1 &&
               plan.most_spans > 1 && needed <= attention_spans_.size_bytes();
  return plan;
}

AttentionTile CpuBackend::AttentionTileAt(const AttentionArgs& args, const AttentionPlan& plan,
                                          int64_t tile, int thread) {
  const auto& cache = static_cast<const CpuKvCache&>(*args.cache);
  const KvShape& shape = cache.shape();
  const int64_t token_tile = tile / shape.num_kv_heads;
  const auto kv_head = static_cast<int>(tile % shape.num_kv_heads);
  const auto tiles_before =
      std::span(attention_tiles_).first(static_cast<size_t>(step_.num_sequences()));
  // The last sequence that starts at or before this tile (those without tokens have none).
  const auto after = std::upper_bound(tiles_before.begin(), tiles_before.end(), token_tile);
  const auto sequence = static_cast<size_t>(after - tiles_before.begin()) - 1;
  const int first = step_.first_tokens()[sequence] +
                    static_cast<int>(token_tile - tiles_before[sequence]) * plan.tokens_per_tile;
  const int end = std::min(first + plan.tokens_per_tile, step_.first_tokens()[sequence + 1]);
  const auto row = static_cast<size_t>(first);
  const int64_t column = int64_t{kv_head} * plan.heads * shape.head_dim;
  return {.queries = args.queries.row(first) + column,
          .query_stride = args.queries.stride,
          .out = args.out.row(first) + column,
          .out_stride = args.out.stride,
          .tokens = end - first,
          .heads = plan.heads,
          .head_dim = shape.head_dim,
          .first_position = step_.positions()[row],
          .window = args.window,
          .score_scale = args.score_scale,
          .blocks = step_.blocks(args.kv_group, step_.sequence_rows()[row]),
          .cache = reinterpret_cast<const unsigned char*>(cache.head(0, kv_head)),
          .head_bytes = cache.head_bytes(),
          .scratch = attention_scratch_.as<float>().data() + thread * attention_floats_};
}

void CpuBackend::Attention(const AttentionArgs& args) {
  const KvShape& shape = static_cast<const CpuKvCache&>(*args.cache).shape();
  const AttentionPlan plan = PlanAttention(args);
  const int64_t tiles = plan.token_tiles * shape.num_kv_heads;
  if (plan.split) return AttendSplit(args, plan);
  const auto attend = kernels_.attend[Index(shape.dtype)];
  pool_.Run(tiles, [&](int64_t i, int thread) {
    const int64_t tile = tiles - 1 - i;  // later tokens see more keys: longest first
    attend(AttentionTileAt(args, plan, tile, thread));
  });
}

// Few queries with long contexts: threads share the spans of a tile, some neighbours at a time,
// since the end of a span reads ahead in the next.
void CpuBackend::AttendSplit(const AttentionArgs& args, const AttentionPlan& plan) {
  const KvShape& shape = static_cast<const CpuKvCache&>(*args.cache).shape();
  const int64_t tiles = plan.token_tiles * shape.num_kv_heads;
  const auto attend = kernels_.attend_span[Index(shape.dtype)];
  const auto sums = [&](int64_t tile, int64_t span) {
    return attention_spans_.as<float>().data() + (tile * plan.most_spans + span) * plan.span_floats;
  };
  const int64_t spans = CeilDivide(plan.most_spans * tiles, kTilesPerThread * pool_.threads());
  const int64_t parts = CeilDivide(plan.most_spans, spans);
  pool_.Run(tiles * parts, [&](int64_t part, int thread) {
    const int64_t tile = part / parts;
    const AttentionTile attended = AttentionTileAt(args, plan, tile, thread);
    const int64_t first = part % parts * spans;
    for (int64_t i = first; i < std::min<int64_t>(first + spans, plan.most_spans); ++i) {
      const int64_t span = FirstSpan(attended) + i;
      if (span < EndSpan(attended)) attend(attended, static_cast<int>(span), sums(tile, i));
    }
  });
  ForEachRow(static_cast<int>(tiles), plan.most_spans * plan.span_floats,
             [&](int tile, int thread) {
               kernels_.merge_spans(AttentionTileAt(args, plan, tile, thread), sums(tile, 0),
                                    plan.span_floats);
             });
}

}  // namespace sauva
