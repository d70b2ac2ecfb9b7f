#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "model/tokenizer.h"

namespace sauva {

inline constexpr size_t kMaxModelFileBytes = 64 << 20;

// Reads the small files of a model directory: config, tokenizer and chat template files,
// those that are there. They are all a gateway needs of a model.
// Errors: NOT_FOUND naming the directory, or its missing config.json; INVALID_ARGUMENT for
// a file above kMaxModelFileBytes.
absl::StatusOr<ModelFiles> ReadModelFiles(const std::string& directory);

}  // namespace sauva
