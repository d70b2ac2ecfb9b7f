#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/quantized_matrix.h"
#include "quantize/options.h"
#include "quantize/shard_writer.h"

// Quantized matrices in the layouts that others read; the inverse of model/quantized.
namespace sauva {

// The layout that a method's matrices are published in.
//   awq: AWQ "gemm". gptq: GPTQ version 1. nf4, llm-int8: bitsandbytes.
//   int8, int8-static: compressed-tensors "int-quantized".
// `module` is the name in front of each tensor's suffix; `float_type` is that of the
// model's own tensors, which scales take where the layout leaves it open.
struct PackTarget {
  Method method = Method::kInt8;
  std::string module;
  DType float_type = DType::kF16;
};
std::vector<ShardTensor> PackMatrix(const QuantizedMatrix& matrix, const PackTarget& target);

// The scales of an NF4 matrix as codes of 8 bits and a scale for each 256 of them.
// Source: bitsandbytes/functional.py, quantize_4bit with compress_statistics, and
// create_dynamic_map.
struct NestedScales {
  static constexpr int64_t kBlock = 256;
  std::vector<uint8_t> codes;
  std::vector<float> largest;  // of each block
  float offset = 0;            // the mean, taken off before
  static NestedScales Of(const std::vector<float>& scales);
  static const std::vector<float>& Map();  // [256], rising
  float Value(int64_t i) const;
};

// config.json's quantization_config.
nlohmann::json QuantizationConfig(const QuantizeOptions& options,
                                  const std::vector<std::string>& kept_modules);

}  // namespace sauva
