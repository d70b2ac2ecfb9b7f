#include "quantize/packing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "model/quantized/layout.h"

namespace sauva {
namespace {

// Random codes and scales that f16 holds, as every writer rounds them.
QuantizedMatrix RandomMatrix(Method method, int bits, bool act_order) {
  std::mt19937 random(7);
  QuantizedMatrix m{.bits = bits, .rows = 64, .columns = 192, .group_size = 64};
  const bool whole_rows = bits == 8;
  if (method == Method::kNf4) m.kind = CodeKind::kNf4;
  if (whole_rows) m.group_size = m.columns;
  for (int64_t i = 0; i < m.rows * m.columns; ++i) {
    const auto code = static_cast<uint32_t>(random() % (1u << bits));
    m.codes.push_back(static_cast<uint8_t>(whole_rows ? std::max(code, 1u) : code));
  }
  for (int64_t i = 0; i < m.rows * m.groups(); ++i) {
    m.scales.push_back(std::ldexp(static_cast<float>(1024 + random() % 1024), -16));
    const auto zero = static_cast<uint32_t>(1 + random() % ((1u << bits) - 1));
    if (m.kind == CodeKind::kInteger) {
      m.zeros.push_back(static_cast<uint8_t>(whole_rows ? 128 : zero));
    }
  }
  for (int32_t i = 0; act_order && i < m.columns; ++i) m.column_order.push_back(i * 5 % 192);
  if (method == Method::kInt8Static) {
    m.activation = ActivationKind::kInt8Static;
    m.activation_scale = 0.03125f;
  }
  if (method == Method::kLlmInt8) {
    m.activation = ActivationKind::kLlmInt8;
    m.outlier_threshold = 6.0f;
  }
  return m;
}

absl::StatusOr<QuantizedMatrix> ReadBack(const QuantizedMatrix& matrix,
                                         const QuantizeOptions& options) {
  const std::vector<ShardTensor> tensors =
      PackMatrix(matrix, {.method = options.method, .module = "m", .float_type = DType::kF16});
  QuantizedParts parts{.module = "m", .by_suffix = {}};
  for (const ShardTensor& tensor : tensors) {
    EXPECT_TRUE(tensor.name.starts_with("m."));
    parts.by_suffix[tensor.name.substr(2)] = {tensor.dtype, tensor.shape, tensor.bytes()};
  }
  const nlohmann::json config = {{"quantization_config", QuantizationConfig(options, {})}};
  const auto layout = ReadQuantizedLayout({{"config.json", config.dump()}});
  if (!layout.ok()) return layout.status();
  return (*layout)->Read(parts, {.rows = matrix.rows, .columns = matrix.columns}, {});
}

std::vector<float> Numbers(const QuantizedMatrix& m) {
  std::vector<float> numbers(m.codes.size());
  for (int64_t row = 0; row < m.rows; ++row) {
    for (int64_t i = 0; i < m.columns; ++i) {
      const int64_t column = m.column_order.empty() ? i : m.column_order[static_cast<size_t>(i)];
      numbers[static_cast<size_t>(row * m.columns + column)] = Dequantize(m, row, i);
    }
  }
  return numbers;
}

TEST(PackingTest, WhatIsPackedIsReadBackToTheBit) {
  struct Case {
    Method method;
    int bits;
    bool act_order;
  };
  for (const Case c :
       {Case{Method::kAwq, 4, false}, Case{Method::kGptq, 4, false}, Case{Method::kGptq, 4, true},
        Case{Method::kGptq, 3, false}, Case{Method::kGptq, 3, true}, Case{Method::kInt8, 8, false},
        Case{Method::kInt8Static, 8, false}, Case{Method::kLlmInt8, 8, false}}) {
    SCOPED_TRACE(testing::Message() << Name(c.method) << " " << c.bits << " bits");
    const QuantizedMatrix matrix = RandomMatrix(c.method, c.bits, c.act_order);
    const QuantizeOptions options = {.method = c.method,
                                     .bits = c.bits,
                                     .group_size = 64,
                                     .act_order = c.act_order,
                                     .symmetric = false};
    const auto read = ReadBack(matrix, options);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(Numbers(*read), Numbers(matrix));
    EXPECT_EQ(read->activation, matrix.activation);
    EXPECT_EQ(read->activation_scale, matrix.activation_scale);
    EXPECT_EQ(read->outlier_threshold, matrix.outlier_threshold);
  }
}

TEST(PackingTest, Nf4ScalesAreQuantizedThemselvesToWithinTheirMap) {
  const QuantizedMatrix matrix = RandomMatrix(Method::kNf4, 4, false);
  const auto read = ReadBack(matrix, {.method = Method::kNf4});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->codes, matrix.codes);
  const NestedScales nested = NestedScales::Of(matrix.scales);
  for (size_t i = 0; i < matrix.scales.size(); ++i) {
    EXPECT_EQ(read->scales[i], nested.Value(static_cast<int64_t>(i)));
    EXPECT_NEAR(read->scales[i], matrix.scales[i], 0.01f * nested.largest[0]);
  }
}

TEST(PackingTest, TheMapOfNestedScalesIsThatOfItsFormat) {
  const std::vector<float>& map = NestedScales::Map();
  EXPECT_EQ(map.size(), 256u);
  EXPECT_EQ(std::set<float>(map.begin(), map.end()).size(), 256u);
  EXPECT_TRUE(std::is_sorted(map.begin(), map.end()));
  EXPECT_EQ(map.back(), 1.0f);
  EXPECT_NEAR(map.front(), -0.99296875f, 1e-6f);  // by bitsandbytes, create_dynamic_map()
  EXPECT_NEAR(map[1], -0.97890625f, 1e-6f);
}

}  // namespace
}  // namespace sauva
