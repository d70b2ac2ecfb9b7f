#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

// Logs are lines of key=value pairs on standard error, never prompts or generated text.
namespace sauva {

// A value of a log line; numbers and strings convert by themselves.
struct LogField {
  template <class T>
  LogField(std::string_view key_in, const T& value_in)
      : key(key_in), value(absl::StrCat(value_in)) {}
  // Debian's Abseil does not know std::string_view.
  LogField(std::string_view key_in, std::string_view value_in) : key(key_in), value(value_in) {}
  std::string key;
  std::string value;
};
using LogFields = std::initializer_list<LogField>;

// `event` is a short constant phrase ("worker joined"); what varies goes into fields.
// Thread: any.
void LogDebug(std::string_view event, LogFields fields = {});
void LogInfo(std::string_view event, LogFields fields = {});
void LogWarning(std::string_view event, LogFields fields = {});
void LogError(std::string_view event, LogFields fields = {});

// The same for fields collected at run time.
void LogInfo(std::string_view event, const std::vector<LogField>& fields);
void LogWarning(std::string_view event, const std::vector<LogField>& fields);

// Names this process in every line ("worker"); `level` is debug, info, warning or error.
// Errors: INVALID_ARGUMENT naming the levels.
absl::Status ConfigureLog(std::string_view role, std::string_view level);

// The same for the level alone, while the process runs. Thread: any.
absl::Status SetLogLevel(std::string_view level);

}  // namespace sauva
