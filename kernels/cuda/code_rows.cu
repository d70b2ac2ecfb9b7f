#include "kernels/cuda/code_formats.h"
#include "kernels/cuda/code_scales.h"

// Single elements of matrices of codes, as numbers: embeddings and outliers.
namespace sauva::cuda {
namespace {

constexpr int kThreads = 128;

// kernels/quantized_matrix.cc: Dequantize.
__device__ float Dequantize(const CodeMatrix& weight, const Nf4Values& nf4, int64_t row,
                            int64_t column) {
  const int64_t tile = row / kTileRows;
  const int64_t group = column / kTileColumns;
  const int row_in_tile = static_cast<int>(row % kTileRows);
  const TilePlace place = WeightPlace(row_in_tile, static_cast<int>(column % kTileColumns));
  const int64_t at = tile * weight.weight_groups() + group / weight.scale_groups;
  const int zero = ZeroOf(weight, at, row_in_tile);
  const float scale = ScaleOf(weight, at, row_in_tile);
  switch (weight.format) {
    case CodeFormat::kInt8:
      return static_cast<float>(Int8Codes::At(weight, tile, group, place) - zero) * scale;
    case CodeFormat::kInt4:
      return static_cast<float>(Int4Codes::At(weight, tile, group, place) - zero) * scale;
    case CodeFormat::kInt3:
      return static_cast<float>(Int3Codes::At(weight, tile, group, place) - zero) * scale;
    default:
      return nf4.values[Nf4Codes::At(weight, tile, group, place)] * scale;
  }
}

__global__ void Gather(CodeGatherLaunch args) {
  const int64_t row = args.token_ids[blockIdx.x];
  float* out = args.out.data + int64_t{blockIdx.x} * args.out.stride;
  for (int i = static_cast<int>(threadIdx.x); i < args.out.columns; i += kThreads) {
    const int to = args.column_order != nullptr ? args.column_order[i] : i;
    out[to] = Dequantize(args.weight, args.nf4, row, i) * args.scale;
  }
}

__global__ void AddOutliers(OutlierLaunch args) {
  const int64_t token = blockIdx.x;
  const int count = args.quantized.num_outliers[token];
  const int64_t row = int64_t{blockIdx.y} * kThreads + static_cast<int>(threadIdx.x);
  if (count == 0 || row >= args.weight.rows) return;
  const int32_t* outliers = args.quantized.outliers + token * args.x.columns;
  float sum = 0;
  for (int i = 0; i < count; ++i) {
    const int column = outliers[i];
    const int from = args.column_order != nullptr ? args.column_order[column] : column;
    sum = Fma(args.x.data[token * args.x.stride + from],
              Dequantize(args.weight, args.nf4, row, column), sum);
  }
  float& out = args.out.data[token * args.out.stride + row];
  out = out + sum;
}

}  // namespace

void LaunchCodeGather(const CodeGatherLaunch& args, void* stream) {
  if (args.out.rows == 0) return;
  Launch(
      Gather,
      {.grid = {static_cast<unsigned>(args.out.rows), 1, 1}, .threads = kThreads, .stream = stream},
      args);
}

void LaunchAddOutliers(const OutlierLaunch& args, void* stream) {
  if (args.out.rows == 0) return;
  const auto blocks = static_cast<unsigned>((args.weight.rows + kThreads - 1) / kThreads);
  Launch(AddOutliers,
         {.grid = {static_cast<unsigned>(args.out.rows), blocks, 1},
          .threads = kThreads,
          .stream = stream},
         args);
}

}  // namespace sauva::cuda
