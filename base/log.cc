#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <span>

namespace sauva {
namespace {

// Values with spaces, quotes or control characters are quoted, so that a line stays one
// line and splits unambiguously.
std::string Quoted(const std::string& value) {
  const bool plain = !value.empty() && value.find_first_of(" \"=\n\r\t\\") == std::string::npos;
  if (plain) return value;
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out + '"';
}

spdlog::logger& Logger() {
  // Made once and never destroyed: threads may log until the very end.
  static spdlog::logger* const logger = [] {
    auto made = std::make_unique<spdlog::logger>("sauva",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v", spdlog::pattern_time_type::utc);
    made->flush_on(spdlog::level::info);
    return made.release();
  }();
  return *logger;
}

std::string& Role() {
  static auto* const role = new std::string("sauva");
  return *role;
}

void Write(spdlog::level::level_enum level, std::string_view event,
           std::span<const LogField> fields) {
  spdlog::logger& logger = Logger();
  if (!logger.should_log(level)) return;
  std::string line = absl::StrCat("role=", Role(), " event=", Quoted(std::string(event)));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=", Quoted(field.value));
  }
  logger.log(level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

void LogDebug(std::string_view event, LogFields fields) {
  Write(spdlog::level::debug, event, {fields.begin(), fields.size()});
}
void LogInfo(std::string_view event, LogFields fields) {
  Write(spdlog::level::info, event, {fields.begin(), fields.size()});
}
void LogWarning(std::string_view event, LogFields fields) {
  Write(spdlog::level::warn, event, {fields.begin(), fields.size()});
}
void LogInfo(std::string_view event, const std::vector<LogField>& fields) {
  Write(spdlog::level::info, event, fields);
}
void LogWarning(std::string_view event, const std::vector<LogField>& fields) {
  Write(spdlog::level::warn, event, fields);
}
void LogError(std::string_view event, LogFields fields) {
  Write(spdlog::level::err, event, {fields.begin(), fields.size()});
}

absl::Status ConfigureLog(std::string_view role, std::string_view level) {
  Role() = std::string(role);
  return SetLogLevel(level);
}

absl::Status SetLogLevel(std::string_view level) {
  if (level == "debug") {
    Logger().set_level(spdlog::level::debug);
  } else if (level == "info") {
    Logger().set_level(spdlog::level::info);
  } else if (level == "warning") {
    Logger().set_level(spdlog::level::warn);
  } else if (level == "error") {
    Logger().set_level(spdlog::level::err);
  } else {
    return absl::InvalidArgumentError(absl::StrCat("log level '", std::string(level),
                                                   "' is none of debug, info, warning, error"));
  }
  return absl::OkStatus();
}

}  // namespace sauva
