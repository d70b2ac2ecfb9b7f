#pragma once

#include "absl/status/status.h"
#include "kernels/backend.h"

namespace sauva {

// Errors: INVALID_ARGUMENT for counts that are not positive or a type other than f32,
// f16 and int8; RESOURCE_EXHAUSTED for more bytes than can be counted.
absl::Status ValidateKvShape(const KvShape& shape);

}  // namespace sauva
