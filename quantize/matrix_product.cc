#include "quantize/matrix_product.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "kernels/cpu/select.h"

namespace sauva {
namespace {

constexpr int64_t kRows = 48;  // of a tile; a multiple of every register tile
constexpr int64_t kColumns = 64;
constexpr int64_t kInner = 512;  // both inputs of a tile stay in L2

const KernelTable& Kernels() {
  static const KernelTable* const kernels = *SelectKernels(InstructionSet::kAuto);
  return *kernels;
}

}  // namespace

void AddProduct(const ProductArgs& args) {
  Check(args.inner % 16 == 0 && args.b_stride % 16 == 0, "a product's rows are whole lanes");
  const auto dot_tile = Kernels().dot_tile[static_cast<size_t>(Storage::kF32)];
  std::array<float, kRows * kColumns> sums;
  for (int64_t k = 0; k < args.inner; k += kInner) {
    const int64_t inner = std::min(kInner, args.inner - k);
    for (int64_t column = 0; column < args.columns; column += kColumns) {
      const int64_t columns = std::min(kColumns, args.columns - column);
      for (int64_t row = 0; row < args.rows; row += kRows) {
        const int64_t rows = std::min(kRows, args.rows - row);
        dot_tile({.weight = args.b + column * args.b_stride + k,
                  .weight_stride = args.b_stride,
                  .rows = static_cast<int>(columns),
                  .x = args.a + row * args.a_stride + k,
                  .x_stride = args.a_stride,
                  .tokens = static_cast<int>(rows),
                  .columns = inner,
                  .out = sums.data(),
                  .out_stride = kColumns});
        for (int64_t i = 0; i < rows; ++i) {
          float* c = args.c + (row + i) * args.c_stride + column;
          const float* sum = sums.data() + i * kColumns;
          for (int64_t j = 0; j < columns; ++j) c[j] += args.factor * sum[j];
        }
      }
    }
  }
}

}  // namespace sauva
