#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace sauva {

// Reads typed, bounded values out of one JSON object of a config file. A key that is
// absent or null takes the fallback; without a fallback it is an error.
// Errors: INVALID_ARGUMENT naming file, key, the value found and the limits.
// Thread: const methods are safe from any thread.
class ConfigReader {
 public:
  // `object` must be a JSON object. `where` goes in front of keys in messages, as in
  // "config.json: rope_scaling.".
  ConfigReader(nlohmann::json object, std::string where)
      : object_(std::move(object)), where_(std::move(where)) {}

  struct IntegerRange {
    int64_t min = 1;
    int64_t max = 0;
  };
  absl::StatusOr<int> Integer(const std::string& key, IntegerRange range,
                              std::optional<int> fallback = std::nullopt) const;

  struct NumberRange {
    double min = 0;
    double max = 0;
  };
  absl::StatusOr<float> Number(const std::string& key, NumberRange range,
                               std::optional<float> fallback = std::nullopt) const;

  absl::StatusOr<bool> Boolean(const std::string& key, bool fallback) const;
  absl::StatusOr<std::string> String(const std::string& key, const std::string& fallback) const;

  // The object under `key`; nothing when absent or null.
  absl::StatusOr<std::optional<ConfigReader>> Object(const std::string& key) const;

  // True if `key` is there and not null.
  bool Has(const std::string& key) const;
  const nlohmann::json& json() const { return object_; }

  // "WHERE KEY is VALUE, expected EXPECTED".
  absl::Status Unexpected(const std::string& key, const std::string& expected) const;

 private:
  nlohmann::json object_;
  std::string where_;
};

}  // namespace sauva
