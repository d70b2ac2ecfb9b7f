#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "model/tokenizer.h"
#include "model/tokenizers/byte_level_bpe.h"

namespace sauva {

// Reads a parsed tokenizer.json of a byte-level BPE. "truncation" and "padding" are
// settings for batches of training data and are ignored.
// Errors: INVALID_ARGUMENT naming what is wrong or not supported.
absl::StatusOr<ByteLevelBpeParts> ReadTokenizerJson(nlohmann::json root);

// The same from the older files vocab.json and merges.txt, which leave normalizer and
// pattern to the code; tokenizer_config.json says whose: GPT2Tokenizer or Qwen2Tokenizer.
absl::StatusOr<ByteLevelBpeParts> ReadVocabularyAndMerges(const ModelFiles& files);

}  // namespace sauva
