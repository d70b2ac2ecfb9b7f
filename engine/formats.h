#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"

// The formats a stage may be told to use, by the names they have in assignments and flags.
namespace sauva {

// "native" or "int8". Errors: INVALID_ARGUMENT naming the choices.
absl::StatusOr<WeightFormat> ParseWeightFormat(const std::string& name);
const char* Name(WeightFormat format);

// "f32" or "f16". Errors: INVALID_ARGUMENT naming the choices.
absl::StatusOr<DType> ParseKvType(const std::string& name);

// How the activations of a format's matrices are quantized: "none", or "int8-group32".
const char* ActivationQuantization(WeightFormat format);

}  // namespace sauva
