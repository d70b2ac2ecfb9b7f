#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sauva {

// Parses JSON that came from outside. Nesting is limited to 64 levels.
// Errors: INVALID_ARGUMENT naming the file and the byte where parsing stopped.
absl::StatusOr<nlohmann::json> ParseJson(const std::string& file_name, std::string_view text);

// A value for a message: ASCII, shortened.
std::string ShortText(const nlohmann::json& value);

}  // namespace sauva
