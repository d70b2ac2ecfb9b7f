#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "proto/generation.h"
#include "worker/session_types.h"

namespace sauva {

inline constexpr size_t kMaxEosTokens = 64;

// Whether this model can serve a request whose numbers generation_codec has found in range:
// after OK nothing in it can make a stage refuse the sequence.
// Errors: INVALID_ARGUMENT naming field, limit and value.
absl::Status CheckRequest(const SequenceRequest& request, const ModelFacts& facts);

// Tokens the completion may have in all: max_tokens, or what the context leaves.
// Requires: CheckRequest was OK.
uint32_t MaxCompletionTokens(const SequenceRequest& request, const ModelFacts& facts);

}  // namespace sauva
