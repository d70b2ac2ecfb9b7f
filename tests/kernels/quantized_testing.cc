#include "tests/kernels/quantized_testing.h"

#include <numeric>
#include <sstream>
#include <utility>

#include "kernels/half.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva::testing {

std::vector<QuantizedCase> EveryCodeKind() {
  constexpr int kWholeRow = 1 << 20;
  std::vector<QuantizedCase> cases;
  for (const int bits : {3, 4, 8}) {
    cases.push_back({.bits = bits, .group_size = 32});
    cases.push_back({.bits = bits, .group_size = 64, .half_scales = false, .symmetric = true});
    cases.push_back({.bits = bits, .group_size = kWholeRow});
  }
  cases.push_back({.kind = CodeKind::kNf4, .group_size = 64});
  cases.push_back({.kind = CodeKind::kNf4, .group_size = kWholeRow, .half_scales = false});
  return cases;
}

QuantizedMatrix RandomQuantized(const QuantizedCase& c) {
  Random random(static_cast<uint32_t>(c.rows * 1000 + c.columns));
  QuantizedMatrix matrix{.kind = c.kind,
                         .bits = c.bits,
                         .rows = c.rows,
                         .columns = c.columns,
                         .group_size = c.group_size,
                         .activation = c.activation,
                         .activation_scale = 0.02f,
                         .outlier_threshold = 2.5f};
  const int levels = 1 << c.bits;
  for (int i = 0; i < c.rows * c.columns; ++i) {
    matrix.codes.push_back(static_cast<uint8_t>(random.Below(levels)));
  }
  for (int64_t i = 0; i < c.rows * matrix.groups(); ++i) {
    const float scale = 0.01f * random.Normal();
    matrix.scales.push_back(c.half_scales ? HalfToFloat(FloatToHalf(scale)) : scale);
    if (c.kind == CodeKind::kNf4) continue;
    const int most = c.bits == 8 ? 255 : levels;  // a zero point may lie past the last code
    matrix.zeros.push_back(static_cast<uint8_t>(c.symmetric ? levels / 2 : random.Below(most + 1)));
  }
  if (c.column_order) {
    matrix.column_order.resize(static_cast<size_t>(c.columns));
    std::iota(matrix.column_order.begin(), matrix.column_order.end(), 0);
    for (int i = c.columns - 1; i > 0; --i) {
      std::swap(matrix.column_order[static_cast<size_t>(i)],
                matrix.column_order[static_cast<size_t>(random.Below(i + 1))]);
    }
  }
  return matrix;
}

WeightSource SourceOf(const QuantizedMatrix& matrix) {
  return {
      .name = "test.weight", .rows = matrix.rows, .columns = matrix.columns, .quantized = &matrix};
}

std::string Describe(const QuantizedCase& c) {
  std::ostringstream out;
  out << (c.kind == CodeKind::kNf4 ? "nf4" : "int") << c.bits << ", " << c.rows << " x "
      << c.columns << ", groups of " << c.group_size << (c.half_scales ? ", f16 scales" : "")
      << (c.symmetric ? ", symmetric" : "") << (c.column_order ? ", ordered" : "")
      << ", activations " << static_cast<int>(c.activation);
  return out.str();
}

}  // namespace sauva::testing
