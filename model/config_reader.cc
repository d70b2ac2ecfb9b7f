#include "model/config_reader.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/json.h"

namespace sauva {
namespace {

std::string RangeText(double min, double max) {
  return absl::StrCat("a number between ", min, " and ", max);
}

}  // namespace

bool ConfigReader::Has(const std::string& key) const {
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

absl::Status ConfigReader::Unexpected(const std::string& key, const std::string& expected) const {
  const std::string found = object_.contains(key) ? ShortText(object_[key]) : "missing";
  return absl::InvalidArgumentError(
      absl::StrCat(where_, key, " is ", found, ", expected ", expected));
}

absl::StatusOr<int> ConfigReader::Integer(const std::string& key, IntegerRange range,
                                          std::optional<int> fallback) const {
  if (!Has(key) && fallback) return *fallback;
  const std::string expected = absl::StrCat("an integer between ", range.min, " and ", range.max);
  if (!Has(key) || !object_[key].is_number_integer()) return Unexpected(key, expected);
  const nlohmann::json& value = object_[key];
  // As int64 a larger one could wrap around into the range.
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(range.max)) {
    return Unexpected(key, expected);
  }
  const auto integer = value.get<int64_t>();
  if (integer < range.min || integer > range.max) return Unexpected(key, expected);
  return static_cast<int>(integer);
}

absl::StatusOr<float> ConfigReader::Number(const std::string& key, NumberRange range,
                                           std::optional<float> fallback) const {
  if (!Has(key) && fallback) return *fallback;
  const std::string expected = RangeText(range.min, range.max);
  if (!Has(key) || !object_[key].is_number()) return Unexpected(key, expected);
  const auto number = object_[key].get<double>();
  if (!std::isfinite(number) || number < range.min || number > range.max) {
    return Unexpected(key, expected);
  }
  return static_cast<float>(number);
}

absl::StatusOr<bool> ConfigReader::Boolean(const std::string& key, bool fallback) const {
  if (!Has(key)) return fallback;
  if (!object_[key].is_boolean()) return Unexpected(key, "true or false");
  return object_[key].get<bool>();
}

absl::StatusOr<std::string> ConfigReader::String(const std::string& key,
                                                 const std::string& fallback) const {
  if (!Has(key)) return fallback;
  if (!object_[key].is_string()) return Unexpected(key, "a string");
  return object_[key].get<std::string>();
}

absl::StatusOr<std::optional<ConfigReader>> ConfigReader::Object(const std::string& key) const {
  if (!Has(key)) return std::optional<ConfigReader>();
  if (!object_[key].is_object()) return Unexpected(key, "an object or null");
  return std::optional<ConfigReader>(ConfigReader(object_[key], absl::StrCat(where_, key, ".")));
}

}  // namespace sauva
