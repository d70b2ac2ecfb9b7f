#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/backend.h"

// Reading matrices as they stand in a checkpoint, common to the host backends.
namespace sauva {

// Errors: INVALID_ARGUMENT naming the tensor when its dtype is no float type, its shape is
// empty or its bytes are not exactly rows * columns elements; or when its quantized matrix
// is invalid or of another shape.
absl::Status ValidateWeightSource(const WeightSource& source);

// Row `row` of a validated source of numbers, widened. Shapes: values [columns].
void ReadRow(const WeightSource& source, int64_t row, std::span<float> values);

}  // namespace sauva
