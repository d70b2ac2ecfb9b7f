#include "quantize/matrix_product.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "kernels/cpu/select.h"

namespace sauva {
namespace {

constexpr int64_t kInner = 512;             // summed by one call of the kernel
constexpr int64_t kStride = kInner + 16;    // of packed rows, so that they share no cache sets
constexpr int64_t kRows = 48;               // of a tile; a multiple of every register tile
constexpr int64_t kPackedRows = 2 * kRows;  // of A, which stay in L2
constexpr int64_t kColumns = 64;

const KernelTable& Kernels() {
  static const KernelTable* const kernels = *SelectKernels(InstructionSet::kAuto);
  return *kernels;
}

struct Packed {
  std::array<float, kPackedRows * kStride> a;
  std::array<float, kColumns * kStride> b;
  std::array<float, kRows * kColumns> sums;
};

// Part of the product: rows [row, row + rows), columns [column, …) and inner [k, …).
struct Part {
  int64_t row, rows;
  int64_t column, columns;
  int64_t k, inner;
};

void Pack(const float* from, int64_t from_stride, int64_t rows, int64_t inner, float* to) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * from_stride, inner, to + i * kStride);
}

void AddPart(const ProductArgs& args, const Part& part, Packed& packed) {
  const auto dot_tile = Kernels().dot_tile[static_cast<size_t>(Storage::kF32)];
  for (int64_t row = 0; row < part.rows; row += kRows) {
    const int64_t rows = std::min(kRows, part.rows - row);
    dot_tile({.weight = packed.b.data(),
              .weight_stride = kStride,
              .rows = static_cast<int>(part.columns),
              .x = packed.a.data() + row * kStride,
              .x_stride = kStride,
              .tokens = static_cast<int>(rows),
              .columns = part.inner,
              .out = packed.sums.data(),
              .out_stride = kColumns});
    for (int64_t i = 0; i < rows; ++i) {
      float* c = args.c + (part.row + row + i) * args.c_stride + part.column;
      const float* sum = packed.sums.data() + i * kColumns;
      for (int64_t j = 0; j < part.columns; ++j) c[j] += args.factor * sum[j];
    }
  }
}

}  // namespace

void AddProduct(const ProductArgs& args) {
  Check(args.inner % 16 == 0, "a product's rows are whole lanes");
  Packed packed;
  for (int64_t row = 0; row < args.rows; row += kPackedRows) {
    const int64_t rows = std::min(kPackedRows, args.rows - row);
    for (int64_t k = 0; k < args.inner; k += kInner) {
      const int64_t inner = std::min(kInner, args.inner - k);
      Pack(args.a + row * args.a_stride + k, args.a_stride, rows, inner, packed.a.data());
      for (int64_t column = 0; column < args.columns; column += kColumns) {
        const int64_t columns = std::min(kColumns, args.columns - column);
        Pack(args.b + column * args.b_stride + k, args.b_stride, columns, inner, packed.b.data());
        AddPart(args, {row, rows, column, columns, k, inner}, packed);
      }
    }
  }
}

}  // namespace sauva
