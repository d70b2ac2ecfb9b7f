#pragma once

#include "absl/status/status.h"
#include "model/spec.h"
#include "model/tokenizer.h"

namespace sauva {

// A model can take every token of its tokenizer. It may have more rows than the tokenizer
// has tokens; vocabularies are often padded.
// Errors: INVALID_ARGUMENT naming both sizes.
absl::Status CheckTokenizerMatches(const ModelSpec& spec, const Tokenizer& tokenizer);

}  // namespace sauva
