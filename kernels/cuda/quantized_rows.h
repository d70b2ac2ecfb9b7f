#pragma once

#include "kernels/cuda/views.h"

// Activations as int8 codes, in the order in which matrix instructions take them
// (weight_layout.h): tiles of 8 tokens by groups of 32 columns.
namespace sauva::cuda {

// Of one token and one group.
struct alignas(8) GroupFacts {
  float scale = 0;  // that of its activation group; NaN where a number is not finite
  int32_t sum = 0;  // of the codes
};

struct QuantizedRows {
  uint32_t* codes = nullptr;    // [token tiles, groups, 32 lanes, 2]: 8 codes a lane
  GroupFacts* facts = nullptr;  // [token tiles, groups, 8]
  // Only for LLM.int8(): per token the columns left in float, ascending, and how many.
  int32_t* outliers = nullptr;      // [tokens, columns]
  int32_t* num_outliers = nullptr;  // [tokens]
};
constexpr int64_t QuantizedGroups(int64_t columns) { return (columns + 31) / 32; }
constexpr int64_t QuantizedTiles(int64_t tokens) { return (tokens + 7) / 8; }
constexpr int64_t QuantizedCodeBytes(int64_t tokens, int64_t columns) {
  return QuantizedTiles(tokens) * QuantizedGroups(columns) * 256;
}
constexpr int64_t GroupFactsBytes(int64_t tokens, int64_t columns) {
  return QuantizedTiles(tokens) * QuantizedGroups(columns) * 64;
}

// kernels/quantized_matrix.h: ActivationKind.
enum class Rounding { kGroups, kStatic, kLlmInt8 };

struct QuantizeLaunch {
  RowsView x;
  const int32_t* column_order = nullptr;  // code column i is column_order[i] of x; null: i
  Rounding rounding = Rounding::kGroups;
  float static_scale = 0;
  float outlier_threshold = 0;
  int activation_groups = 1;  // groups that share a scale, at most 4
  QuantizedRows out;
};
void LaunchQuantize(const QuantizeLaunch& args, void* stream);

}  // namespace sauva::cuda
