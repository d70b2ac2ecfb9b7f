#pragma once

#include "kernels/cuda/views.h"
#include "kernels/dtype.h"

// Keys and values in blocks, and attention over them in the order of the numerics contract.
namespace sauva::cuda {

// Keys: [blocks][KV heads][16 tokens][16 lanes][steps], element d in lane d % 16, step d / 16,
// so that a thread that is a virtual lane reads its elements together. Values:
// [blocks][KV heads][16 tokens][padded dim]. Scales: [blocks][KV heads][16 of keys, 16 of
// values].
struct KvView {
  void* keys = nullptr;
  void* values = nullptr;
  float* scales = nullptr;    // kI8 only
  DType dtype = DType::kF32;  // kF32, kF16 or kI8
  int num_kv_heads = 0;
  int head_dim = 0;

  constexpr int steps() const { return (head_dim + 15) / 16; }
  constexpr int padded_dim() const { return steps() * 16; }
};

constexpr int kMaxHeadDim = 256;  // what a block's shared memory holds of 8 queries

struct WriteKvLaunch {
  RowsView keys;    // [tokens, KV heads * head_dim]
  RowsView values;  // the same shape
  KvView cache;
  StepView step;
  BlockTableView blocks;
};
void LaunchWriteKv(const WriteKvLaunch& args, void* stream);

struct AttentionLaunch {
  RowsView queries;  // [tokens, heads * head_dim]
  KvView cache;
  StepView step;
  BlockTableView blocks;
  int num_heads = 0;
  float score_scale = 0;
  int window = 0;  // 0: all
  RowsView out;    // as queries

  bool decode_only = false;  // no sequence has more than one token in the step
  // Spans of 512 positions that the longest sequence of the step reaches, at most.
  int num_spans = 1;
  // Of MergeFloats(…) or more floats: spans may then be computed apart and merged; the
  // answer is the same.
  float* partials = nullptr;
  int64_t partial_floats = 0;
};
void LaunchAttention(const AttentionLaunch& args, void* stream);

// Floats that `tokens` rows of attention over `spans` spans leave to be merged.
constexpr int64_t MergeFloats(int64_t tokens, int64_t heads, int64_t spans, int64_t head_dim) {
  return tokens * heads * spans * (head_dim + 2);
}

}  // namespace sauva::cuda
