#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "kernels/backend.h"

// Reading matrices as they stand in a checkpoint, common to the host backends.
namespace sauva {

// Errors: INVALID_ARGUMENT naming the tensor when its dtype is no float type, its shape is
// empty or its bytes are not exactly rows * columns elements.
absl::Status ValidateWeightSource(const WeightSource& source);

// Row `row` of a validated source, widened. Shapes: values [columns].
void ReadRow(const WeightSource& source, int64_t row, std::span<float> values);

// Gives `reader` each row of a validated source as int8 codes and one scale: scale = max |w|
// / 127, code = w / scale rounded to nearest even. A row whose scale would be subnormal is
// all zero.
// Errors: INVALID_ARGUMENT naming tensor, row and column of an element that is not finite.
using Int8RowReader = std::function<void(int64_t row, std::span<const int8_t> codes, float scale)>;
absl::Status ForEachInt8Row(const WeightSource& source, const Int8RowReader& reader);

}  // namespace sauva
