#pragma once

#include "absl/status/statusor.h"
#include "coordinator/model_catalog.h"
#include "coordinator/placement.h"
#include "model/checkpoint.h"
#include "model/spec.h"

namespace sauva {

// What a model takes of memory, bandwidth and arithmetic when served in a format. Reads
// tensor sizes, no tensor.
// Errors: INVALID_ARGUMENT for a format that is none.
absl::StatusOr<ModelCosts> CostsOf(const ModelSpec& spec, const Checkpoint& checkpoint,
                                   const ServingFormat& format);

}  // namespace sauva
