#include <algorithm>

#include "base/ceil_divide.h"
#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_scratch.h"
#include "kernels/numerics.h"

// How matmuls with floats are cut into tiles; those with codes: cpu_quantized_matmul.cc. Tiles are
// a matter of speed only: each output is one sum whose order its tile does not change.
namespace sauva {
namespace {

constexpr int64_t kParallelProducts = 65536;  // below, waking threads costs more
constexpr int64_t kMaxTileRows = 64;
constexpr int64_t kTokenBlockBytes = 512 << 10;  // activations of a tile stay in L2

// Tiles of `rows` outputs x `tokens`; those of the same outputs are neighbours, so that
// their weights are read from memory once.
struct TilePlan {
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t row_tiles = 0;
  int64_t token_tiles = 0;
};

struct MatMulShape {
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t columns = 0;
  int threads = 1;
};

TilePlan Plan(const MatMulShape& shape) {
  TilePlan plan{.rows = shape.rows, .tokens = shape.tokens};
  const int64_t token_bytes = shape.columns * int64_t{sizeof(float)};
  constexpr int64_t kTokenStep = 12;  // a multiple of every register tile
  const int64_t block = kTokenBlockBytes / std::max<int64_t>(1, token_bytes) / kTokenStep;
  plan.tokens = std::min(shape.tokens, std::max<int64_t>(1, block) * kTokenStep);
  if (shape.rows * shape.tokens * shape.columns >= kParallelProducts) {
    const int64_t share = CeilDivide(shape.rows, shape.threads * kTilesPerThread);
    plan.rows = std::min(kMaxTileRows, CeilDivide(share, kLanes) * kLanes);
  }
  plan.row_tiles = CeilDivide(shape.rows, plan.rows);
  plan.token_tiles = CeilDivide(shape.tokens, plan.tokens);
  return plan;
}

}  // namespace

void CpuBackend::MatMulAll(std::span<const MatMulArgs> products) {
  for (const MatMulArgs& args : products) {
    Check(args.x.columns == args.weight->columns() && args.out.columns == args.weight->rows() &&
              args.out.rows == args.x.rows,
          "a matmul's shapes fit");
  }
  while (!products.empty()) {
    const auto& weight = static_cast<const CpuWeight&>(*products[0].weight);
    size_t count = 1;
    if (weight.packed() == nullptr) {
      MatMulNative(weight, products[0]);
    } else {
      count = NumSharing(products);
      MatMulPacked(products.first(count));
    }
    products = products.subspan(count);
  }
}

void CpuBackend::MatMulNative(const CpuWeight& weight, const MatMulArgs& args) {
  const TilePlan plan = Plan({.rows = weight.rows(),
                              .tokens = args.x.rows,
                              .columns = weight.columns(),
                              .threads = pool_.threads()});
  const auto dot_tile = kernels_.dot_tile[static_cast<size_t>(weight.storage())];
  pool_.Run(plan.row_tiles * plan.token_tiles, [&](int64_t tile, int) {
    const int64_t row = tile / plan.token_tiles * plan.rows;
    const int64_t token = tile % plan.token_tiles * plan.tokens;
    dot_tile({.weight = weight.row(row),
              .weight_stride = weight.stride(),
              .rows = static_cast<int>(std::min(plan.rows, weight.rows() - row)),
              .x = args.x.data + token * args.x.stride,
              .x_stride = args.x.stride,
              .tokens = static_cast<int>(std::min(plan.tokens, args.x.rows - token)),
              .columns = weight.columns(),
              .bias = args.bias.empty() ? nullptr : args.bias.data() + row,
              .out = args.out.data + token * args.out.stride + row,
              .out_stride = args.out.stride});
  });
}

}  // namespace sauva
