#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/ceil_divide.h"
#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_scratch.h"
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

// The size of parts of at most `most` that are nearly equal.
int64_t PartSize(int64_t whole, int64_t most) { return CeilDivide(whole, CeilDivide(whole, most)); }

const PackedMatrix& PackedOf(const MatMulArgs& args) {
  return *static_cast<const CpuWeight&>(*args.weight).packed();
}

bool MakesTheSame(const QuantizeArgs& a, const QuantizeArgs& b) {
  const bool same_order = a.order == b.order || (a.order != nullptr && b.order != nullptr &&
                                                 std::equal(a.order, a.order + a.columns, b.order));
  return a.columns == b.columns && a.rounding == b.rounding && a.static_scale == b.static_scale &&
         a.outlier_threshold == b.outlier_threshold && a.group_units == b.group_units &&
         a.offset == b.offset && same_order;
}

// One of the products that are computed together.
struct PackedProduct {
  const MatMulArgs* args = nullptr;
  int64_t tile_rows = 0;
  int64_t first_tile = 0;
};

// Rows of a tile of a matrix with `rows`.
int64_t TileRows(int64_t rows, int64_t tokens, int threads) {
  const int64_t share = CeilDivide(rows, threads * kTilesPerThread);
  const int64_t whole = CeilDivide(share, kTileRows) * kTileRows;
  return std::min(tokens <= kFewTokens ? kMostTileRows : kTileRows, whole);
}

}  // namespace

QuantizeArgs CpuBackend::QuantizeArgsOf(const PackedMatrix& weight, int64_t stride) const {
  QuantizeArgs args = weight.quantize_args();
  args.offset =
      weight.panels(0).zeros ? 1 : kernels_.code_offsets[static_cast<size_t>(weight.format())];
  args.stride = stride;
  return args;
}

// How many of the products, from the first on, take the codes that the first one takes.
size_t CpuBackend::NumSharing(std::span<const MatMulArgs> products) const {
  const QuantizeArgs first = QuantizeArgsOf(PackedOf(products[0]), 1);
  size_t count = 1;
  while (count < std::min(products.size(), kMostShared)) {
    const MatMulArgs& next = products[count];
    const auto& weight = static_cast<const CpuWeight&>(*next.weight);
    Check(next.x.data == products[0].x.data, "products of the same rows");
    if (weight.packed() == nullptr) break;
    if (!MakesTheSame(first, QuantizeArgsOf(*weight.packed(), 1))) break;
    ++count;
  }
  return count;
}

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
  const QuantizeArgs all = QuantizeArgsOf(weight, stride);
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

void CpuBackend::MatMulPacked(std::span<const MatMulArgs> products) {
  const Rows in = products[0].x;
  const Int8Activations x = QuantizeRows(PackedOf(products[0]), in);
  const PackedPanels panels = PackedOf(products[0]).panels(0);
  const int64_t groups = CeilDivide(panels.units, panels.activation_units);
  // Tiles of the same outputs are neighbours, so that their weights are read from memory once.
  const int64_t most = kTokenBlockBytes / (panels.units * kInt8Unit);
  const int64_t register_tiles = CeilDivide(in.rows, x.stride);
  const int64_t tokens = PartSize(register_tiles, std::max<int64_t>(1, most / x.stride)) * x.stride;
  const int64_t token_tiles = CeilDivide(in.rows, tokens);
  std::array<PackedProduct, kMostShared> parts;
  int64_t tiles = 0;
  int64_t work = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const int64_t outputs = products[i].out.columns;
    PackedProduct& part = parts[i];
    part = {&products[i], TileRows(outputs, in.rows, pool_.threads()), tiles};
    tiles += CeilDivide(outputs, part.tile_rows) * token_tiles;
    work += outputs * in.rows * in.columns;
  }
  const auto multiply = [&](int64_t tile, int thread) {
    size_t i = products.size() - 1;
    while (tile < parts[i].first_tile) --i;
    const PackedProduct& part = parts[i];
    const MatMulArgs& args = *part.args;
    const PackedMatrix& weight = PackedOf(args);
    const int64_t row = (tile - part.first_tile) / token_tiles * part.tile_rows;
    const int64_t token = (tile - part.first_tile) % token_tiles * tokens;
    kernels_.packed_tile[static_cast<size_t>(weight.format())](
        {.weight = weight.panels(row / kLanes),
         .rows = static_cast<int>(std::min(part.tile_rows, weight.rows() - row)),
         .x = {.codes = x.codes + token * panels.units * kInt8Unit,
               .scales = x.scales + token * groups,
               .starts = x.starts + token * groups,
               .stride = x.stride},
         .tokens = static_cast<int>(std::min(tokens, in.rows - token)),
         .bias = args.bias.empty() ? nullptr : args.bias.data() + row,
         .out = args.out.data + token * args.out.stride + row,
         .out_stride = args.out.stride,
         .scratch = packed_scratch_.as<uint8_t>().data() + thread * packed_bytes_});
  };
  if (work >= kParallelProducts) {
    pool_.Run(tiles, multiply);
  } else {
    for (int64_t tile = 0; tile < tiles; ++tile) multiply(tile, 0);
  }
  for (const MatMulArgs& args : products) {
    const PackedMatrix& weight = PackedOf(args);
    if (weight.activation() == ActivationKind::kLlmInt8) AddOutliers(weight, args);
  }
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
