#pragma once

#include "absl/status/statusor.h"
#include "gateway/generate_input.h"
#include "gateway/sample_output.h"
#include "sauva/v1/generation.pb.h"

namespace sauva {

// The public API's messages as plain values.
// Errors: INVALID_ARGUMENT for sampling parameters out of range, naming field and limit.
absl::StatusOr<GenerateInput> FromProto(const v1::GenerateRequest& in);

v1::GenerateResponse ToProto(SampleOutput in);

}  // namespace sauva
