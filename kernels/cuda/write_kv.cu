#include "kernels/cuda/attention.h"
#include "kernels/cuda/element_types.h"
#include "kernels/numerics.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;

// One block of threads per token.
template <class Cached>
__global__ void WriteKv(WriteKvLaunch args) {
  const int64_t token = blockIdx.x;
  const int position = args.step.positions[token];
  const int64_t sequence = args.step.sequence_rows[token];
  if (sequence < 0) return;  // padding
  const int64_t block =
      args.blocks.ids[sequence * args.blocks.max_blocks + position / kAttentionBlock];
  const int dim = args.cache.head_dim;
  const int steps = args.cache.steps();
  auto* keys = static_cast<typename Cached::One*>(args.cache.keys);
  auto* values = static_cast<typename Cached::One*>(args.cache.values);
  for (int i = static_cast<int>(threadIdx.x); i < args.cache.num_kv_heads * dim; i += kThreads) {
    const int d = i % dim;
    const int64_t slot =
        (block * args.cache.num_kv_heads + i / dim) * kAttentionBlock + position % kAttentionBlock;
    const int64_t row = slot * args.cache.padded_dim();
    keys[row + d % kLanes * steps + d / kLanes] =
        Cached::Narrow(args.keys.data[token * args.keys.stride + i]);
    values[row + d] = Cached::Narrow(args.values.data[token * args.values.stride + i]);
  }
}

}  // namespace

void LaunchWriteKv(const WriteKvLaunch& args, void* stream) {
  if (args.keys.rows == 0) return;
  const LaunchShape shape = {
      .grid = {static_cast<unsigned>(args.keys.rows), 1, 1}, .threads = kThreads, .stream = stream};
  if (args.cache.dtype == DType::kF32) return Launch(WriteKv<F32>, shape, args);
  Launch(WriteKv<F16>, shape, args);
}

}  // namespace sauva::cuda
