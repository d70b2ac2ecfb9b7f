#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sauva {

enum class Normalizer { kNone, kNfc };

// The "normalizer" of a tokenizer.json: null, NFC, or a Sequence of at most one NFC.
// Errors: INVALID_ARGUMENT naming what is not supported.
absl::StatusOr<Normalizer> ReadNormalizer(const nlohmann::json& section);

// Normalization form C of valid UTF-8, in n log n time for any text.
// Source: Unicode Standard Annex 15.
std::string ToNfc(std::string_view text);

}  // namespace sauva
