#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/numerics.h"

// Matmuls with matrices of codes: rows become int8 in the order in which register tiles read
// them, tiles of outputs are shared out, what int8 left out is added.
namespace sauva {
namespace {

constexpr int64_t kParallelProducts = 65536;  // below, waking threads costs more
constexpr int64_t kTileRows = 64;
constexpr int64_t kMostTileRows = 128;  // of few tokens: memory is read on and on
constexpr int64_t kFewTokens = 4;
constexpr int64_t kPartsPerThread = 4;
constexpr int64_t kTokenBlockBytes = 512 << 10;  // activations of a tile stay in L2

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The size of parts of at most `most` that are nearly equal.
int64_t PartSize(int64_t whole, int64_t most) { return CeilDivide(whole, CeilDivide(whole, most)); }

}  // namespace

// Threads share register tiles and, where those are few, parts of their columns: neighbouring
// tokens of a tile share cache lines.
Int8Activations CpuBackend::QuantizeRows(const PackedMatrix& weight, Rows x) {
  Check(x.rows <= max_rows_ && x.columns <= max_columns_, "a step keeps its limits");
  const PackedPanels panels = weight.panels(0);
  const int64_t groups = CeilDivide(panels.units, panels.activation_units);
  const int64_t stride = kernels_.tile_tokens(x.rows);
  const Int8Activations to = {.codes = int8_codes_.as<int8_t>().data(),
                              .scales = int8_scales_.as<float>().data(),
                              .starts = int8_starts_.as<int32_t>().data(),
                              .stride = stride};
  QuantizeArgs all = weight.quantize_args();
  all.offset = panels.zeros ? 1 : kernels_.code_offsets[static_cast<size_t>(weight.format())];
  all.stride = stride;
  const int64_t tiles = CeilDivide(x.rows, stride);
  const int64_t parts =
      all.rounding == ActivationRounding::kBesideOutliers
          ? 1
          : std::min(groups, CeilDivide(kPartsPerThread * pool_.threads(), tiles));
  const int64_t part_groups = CeilDivide(groups, parts);
  const auto quantize = [&](int64_t tile, int64_t part) {
    QuantizeArgs args = all;
    args.first_group = part * part_groups;
    args.end_group = std::min(groups, args.first_group + part_groups);
    const int64_t first = tile * stride;
    for (int64_t row = first; row < std::min<int64_t>(x.rows, first + stride); ++row) {
      args.x = x.row(static_cast<int>(row));
      args.codes = int8_codes_.as<int8_t>().data() +
                   (tile * panels.units * stride + row - first) * kInt8Unit;
      args.scales = int8_scales_.as<float>().data() + tile * groups * stride + row - first;
      args.starts = int8_starts_.as<int32_t>().data() + tile * groups * stride + row - first;
      args.outliers = int8_outliers_.as<uint32_t>().data() + row * panels.units;
      kernels_.quantize(args);
    }
  };
  ForEachRow(static_cast<int>(tiles * parts),
             CeilDivide(x.rows * int64_t{x.columns}, tiles * parts),
             [&](int item, int) { quantize(item / parts, item % parts); });
  return to;
}

void CpuBackend::MatMulPacked(const PackedMatrix& weight, const MatMulArgs& args) {
  const Int8Activations x = QuantizeRows(weight, args.x);
  const PackedPanels panels = weight.panels(0);
  const int64_t groups = CeilDivide(panels.units, panels.activation_units);
  // Tiles of the same outputs are neighbours, so that their weights are read from memory once.
  const int64_t most = kTokenBlockBytes / (panels.units * kInt8Unit);
  const int64_t register_tiles = CeilDivide(args.x.rows, x.stride);
  const int64_t tokens = PartSize(register_tiles, std::max<int64_t>(1, most / x.stride)) * x.stride;
  const int64_t token_tiles = CeilDivide(args.x.rows, tokens);
  int64_t rows = weight.rows();
  if (weight.rows() * args.x.rows * weight.columns() >= kParallelProducts) {
    constexpr int64_t kTilesPerThread = 4;
    const int64_t share = CeilDivide(rows, pool_.threads() * kTilesPerThread);
    const int64_t whole = CeilDivide(share, kTileRows) * kTileRows;
    rows = std::min(args.x.rows <= kFewTokens ? kMostTileRows : kTileRows, whole);
  }
  const auto packed_tile = kernels_.packed_tile[static_cast<size_t>(weight.format())];
  pool_.Run(CeilDivide(weight.rows(), rows) * token_tiles, [&](int64_t tile, int thread) {
    const int64_t row = tile / token_tiles * rows;
    const int64_t token = tile % token_tiles * tokens;
    packed_tile({.weight = weight.panels(row / kLanes),
                 .rows = static_cast<int>(std::min(rows, weight.rows() - row)),
                 .x = {.codes = x.codes + token * panels.units * kInt8Unit,
                       .scales = x.scales + token * groups,
                       .starts = x.starts + token * groups,
                       .stride = x.stride},
                 .tokens = static_cast<int>(std::min(tokens, args.x.rows - token)),
                 .bias = args.bias.empty() ? nullptr : args.bias.data() + row,
                 .out = args.out.data + token * args.out.stride + row,
                 .out_stride = args.out.stride,
                 .scratch = packed_scratch_.as<uint8_t>().data() + thread * packed_bytes_});
  });
}

// Outliers are few, a column in a thousand: one plain sum per output.
void CpuBackend::AddOutliers(const PackedMatrix& weight, const MatMulArgs& args) {
  const int64_t units = CeilDivide(weight.columns(), kInt8Unit);
  const auto all = int8_outliers_.as<uint32_t>();
  for (int token = 0; token < args.x.rows; ++token) {
    const auto outliers =
        all.subspan(static_cast<size_t>(token * units), static_cast<size_t>(units));
    if (std::all_of(outliers.begin(), outliers.end(), [](uint32_t bits) { return bits == 0; })) {
      continue;
    }
    const float* x = args.x.row(token);
    float* out = args.out.row(token);
    ForEachRow(args.out.columns, kInt8Unit, [&](int row, int) {
      float sum = 0;
      for (int64_t unit = 0; unit < units; ++unit) {
        for (uint32_t bits = outliers[static_cast<size_t>(unit)]; bits != 0; bits &= bits - 1) {
          const int64_t column = unit * kInt8Unit + std::countr_zero(bits);
          sum = std::fma(x[weight.InputColumn(column)], weight.Element(row, column), sum);
        }
      }
      out[row] += sum;
    });
  }
}

}  // namespace sauva
