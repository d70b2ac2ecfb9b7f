#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/backend.h"

// Reading matrices as they stand in a checkpoint, common to the host backends.
namespace sauva {

// Errors: INVALID_ARGUMENT naming the tensor when its dtype is no float type, its shape is
// empty or its bytes are not exactly rows * columns elements.
absl::Status ValidateWeightSource(const WeightSource& source);

// Element `index` of a validated source, as float.
float ElementAsFloat(const WeightSource& source, int64_t index);

// Row `row` of a validated source as int8 codes and one scale: scale = max |w| / 127, code =
// w / scale rounded to nearest even. A row whose scale would be subnormal is all zero.
// Errors: INVALID_ARGUMENT naming tensor and row when an element is not finite.
absl::Status QuantizeRow(const WeightSource& source, int64_t row, std::span<int8_t> codes,
                         float& scale);

}  // namespace sauva
