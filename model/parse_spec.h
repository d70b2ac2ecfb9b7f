#pragma once

#include "absl/status/statusor.h"
#include "model/families/family.h"
#include "model/spec.h"
#include "model/tokenizer.h"

namespace sauva {

// What a model is, from its config.json and generation_config.json.
// Errors: INVALID_ARGUMENT naming file, key, value and limit, or the architectures that
// are supported; NOT_FOUND without a config.json; UNIMPLEMENTED for a quantized checkpoint.
absl::StatusOr<ModelSpec> ParseSpec(const ModelFiles& files);

// The family that ParseSpec used.
absl::StatusOr<const Family*> FamilyOf(const ModelFiles& files);

}  // namespace sauva
