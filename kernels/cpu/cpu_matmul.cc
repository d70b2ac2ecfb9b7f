#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/numerics.h"

// How matmuls are cut into tiles. Tiles are a matter of speed only: each output is one sum
// whose order its tile does not change.
namespace sauva {
namespace {

constexpr int64_t kParallelProducts = 65536;  // below, waking threads costs more
constexpr int64_t kMaxTileRows = 64;
constexpr int64_t kTokenBlockBytes = 512 << 10;  // activations of a tile stay in L2

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
  int64_t activation_bytes = 0;  // per element
  int threads = 1;
};

TilePlan Plan(const MatMulShape& shape) {
  TilePlan plan{.rows = shape.rows, .tokens = shape.tokens};
  const int64_t token_bytes = shape.columns * shape.activation_bytes;
  constexpr int64_t kTokenStep = 12;  // a multiple of every register tile
  const int64_t block = kTokenBlockBytes / std::max<int64_t>(1, token_bytes) / kTokenStep;
  plan.tokens = std::min(shape.tokens, std::max<int64_t>(1, block) * kTokenStep);
  if (shape.rows * shape.tokens * shape.columns >= kParallelProducts) {
    constexpr int64_t kTilesPerThread = 4;
    const int64_t share = CeilDivide(shape.rows, shape.threads * kTilesPerThread);
    plan.rows = std::min(kMaxTileRows, CeilDivide(share, kLanes) * kLanes);
  }
  plan.row_tiles = CeilDivide(shape.rows, plan.rows);
  plan.token_tiles = CeilDivide(shape.tokens, plan.tokens);
  return plan;
}

}  // namespace

void CpuBackend::MatMul(const MatMulArgs& args) {
  const auto& weight = static_cast<const CpuWeight&>(*args.weight);
  Check(args.x.columns == weight.columns() && args.out.columns == weight.rows() &&
            args.out.rows == args.x.rows,
        "a matmul's shapes fit");
  if (weight.packed() == nullptr) return MatMulNative(weight, args);
  MatMulPacked(*weight.packed(), args);
  if (weight.packed()->activation() == ActivationKind::kLlmInt8) {
    AddOutliers(*weight.packed(), args);
  }
}

void CpuBackend::MatMulNative(const CpuWeight& weight, const MatMulArgs& args) {
  const TilePlan plan = Plan({.rows = weight.rows(),
                              .tokens = args.x.rows,
                              .columns = weight.columns(),
                              .activation_bytes = sizeof(float),
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

Int8Activations CpuBackend::QuantizeRows(const PackedMatrix& weight, Rows x) {
  Check(x.rows <= max_rows_ && x.columns <= max_columns_, "a step keeps its limits");
  const int64_t units = CeilDivide(x.columns, kInt8Group);
  int8_t* codes = int8_codes_.as<int8_t>().data();
  float* scales = int8_scales_.as<float>().data();
  int32_t* sums = int8_sums_.as<int32_t>().data();
  int32_t* starts = int8_starts_.as<int32_t>().data();
  const int32_t offset = kernels_.code_offsets[static_cast<size_t>(weight.format())];
  ForEachRow(x.rows, x.columns, [&](int row, int) {
    QuantizeArgs args = weight.quantize_args();
    args.x = x.row(row);
    args.offset = offset;
    args.stride = x.rows;
    args.codes = codes + row * int64_t{kInt8Group};
    args.scales = scales + row;
    args.sums = sums + row;
    args.starts = starts + row;
    args.outliers = int8_outliers_.as<uint32_t>().data() + row * units;
    kernels_.quantize(args);
  });
  return {.codes = codes, .scales = scales, .sums = sums, .starts = starts, .stride = x.rows};
}

void CpuBackend::MatMulPacked(const PackedMatrix& weight, const MatMulArgs& args) {
  const Int8Activations x = QuantizeRows(weight, args.x);
  const TilePlan plan = Plan({.rows = weight.rows(),
                              .tokens = args.x.rows,
                              .columns = weight.columns(),
                              .activation_bytes = sizeof(int8_t),
                              .threads = pool_.threads()});
  const auto packed_tile = kernels_.packed_tile[static_cast<size_t>(weight.format())];
  pool_.Run(plan.row_tiles * plan.token_tiles, [&](int64_t tile, int thread) {
    const int64_t row = tile / plan.token_tiles * plan.rows;
    const int64_t token = tile % plan.token_tiles * plan.tokens;
    packed_tile({.weight = weight.panels(row / kLanes),
                 .rows = static_cast<int>(std::min(plan.rows, weight.rows() - row)),
                 .x = {.codes = x.codes + token * kInt8Group,
                       .scales = x.scales + token,
                       .sums = x.sums + token,
                       .starts = x.starts + token,
                       .stride = x.stride},
                 .tokens = static_cast<int>(std::min(plan.tokens, args.x.rows - token)),
                 .bias = args.bias.empty() ? nullptr : args.bias.data() + row,
                 .out = args.out.data + token * args.out.stride + row,
                 .out_stride = args.out.stride,
                 .scratch = packed_scratch_.as<uint8_t>().data() + thread * packed_bytes_});
  });
}

// Outliers are few, a column in a thousand: one plain sum per output.
void CpuBackend::AddOutliers(const PackedMatrix& weight, const MatMulArgs& args) {
  const int64_t units = CeilDivide(weight.columns(), kInt8Group);
  const auto all = int8_outliers_.as<uint32_t>();
  for (int token = 0; token < args.x.rows; ++token) {
    const auto outliers =
        all.subspan(static_cast<size_t>(token * units), static_cast<size_t>(units));
    if (std::all_of(outliers.begin(), outliers.end(), [](uint32_t bits) { return bits == 0; })) {
      continue;
    }
    const float* x = args.x.row(token);
    float* out = args.out.row(token);
    ForEachRow(args.out.columns, kInt8Group, [&](int row, int) {
      float sum = 0;
      for (int64_t unit = 0; unit < units; ++unit) {
        for (uint32_t bits = outliers[static_cast<size_t>(unit)]; bits != 0; bits &= bits - 1) {
          const int64_t column = unit * kInt8Group + std::countr_zero(bits);
          sum = std::fma(x[weight.InputColumn(column)], weight.Element(row, column), sum);
        }
      }
      out[row] += sum;
    });
  }
}

}  // namespace sauva
