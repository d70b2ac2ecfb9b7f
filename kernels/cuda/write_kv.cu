#include "kernels/cuda/attention.h"
#include "kernels/cuda/element_types.h"
#include "kernels/cuda/int8_rounding.h"
#include "kernels/numerics.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;

// Where one token of a KV head is stored.
struct Slot {
  int64_t head;  // KV head of a block, counted through the cache
  int token;     // in the block

  __device__ int64_t row() const { return head * kAttentionBlock + token; }
};

__device__ __forceinline__ bool IsPadding(const WriteKvLaunch& args, int64_t token) {
  return args.step.sequence_rows[token] < 0;
}

__device__ __forceinline__ Slot SlotOf(const WriteKvLaunch& args, int64_t token, int kv_head) {
  const int position = args.step.positions[token];
  const int64_t sequence = args.step.sequence_rows[token];
  const int64_t block =
      args.blocks.ids[sequence * args.blocks.max_blocks + position / kAttentionBlock];
  return {block * args.cache.num_kv_heads + kv_head, position % kAttentionBlock};
}

// Where element d of a key lies in its row.
__device__ __forceinline__ int KeyPlace(const KvView& cache, int d) {
  return d % kLanes * cache.steps() + d / kLanes;
}

// One block of threads per token.
template <class Cached>
__global__ void WriteKv(WriteKvLaunch args) {
  const int64_t token = blockIdx.x;
  if (IsPadding(args, token)) return;
  const int dim = args.cache.head_dim;
  auto* keys = static_cast<typename Cached::One*>(args.cache.keys);
  auto* values = static_cast<typename Cached::One*>(args.cache.values);
  for (int i = static_cast<int>(threadIdx.x); i < args.cache.num_kv_heads * dim; i += kThreads) {
    const int d = i % dim;
    const int64_t row = SlotOf(args, token, i / dim).row() * args.cache.padded_dim();
    keys[row + KeyPlace(args.cache, d)] =
        Cached::Narrow(args.keys.data[token * args.keys.stride + i]);
    values[row + d] = Cached::Narrow(args.values.data[token * args.values.stride + i]);
  }
}

// One block of threads per token and a warp for each key and each value of a KV head, which
// share a scale.
__global__ void WriteKvInt8(WriteKvLaunch args) {
  const int64_t token = blockIdx.x;
  if (IsPadding(args, token)) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int dim = args.cache.head_dim;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < 2 * args.cache.num_kv_heads;
       i += kThreads / kWarp) {
    const bool is_key = i % 2 == 0;
    const RowsView& rows = is_key ? args.keys : args.values;
    const float* from = rows.data + token * rows.stride + int64_t{i / 2} * dim;
    uint32_t largest = 0;
    for (int d = lane; d < dim; d += kWarp) largest = LargerBits(largest, MagnitudeBits(from[d]));
    const CodeScale by = ScaleFor(WarpMax(largest));
    const Slot slot = SlotOf(args, token, i / 2);
    auto* to = static_cast<int8_t*>(is_key ? args.cache.keys : args.cache.values) +
               slot.row() * args.cache.padded_dim();
    for (int d = lane; d < dim; d += kWarp) {
      to[is_key ? KeyPlace(args.cache, d) : d] = static_cast<int8_t>(RoundCode(from[d], by));
    }
    if (lane != 0) continue;
    args.cache.scales[(2 * slot.head + i % 2) * kAttentionBlock + slot.token] = by.scale;
  }
}

}  // namespace

void LaunchWriteKv(const WriteKvLaunch& args, void* stream) {
  if (args.keys.rows == 0) return;
  const LaunchShape shape = {
      .grid = {static_cast<unsigned>(args.keys.rows), 1, 1}, .threads = kThreads, .stream = stream};
  if (args.cache.dtype == DType::kF32) return Launch(WriteKv<F32>, shape, args);
  if (args.cache.dtype == DType::kF16) return Launch(WriteKv<F16>, shape, args);
  Launch(WriteKvInt8, shape, args);
}

}  // namespace sauva::cuda
