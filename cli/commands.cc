#include "cli/commands.h"

#include <iostream>

#include "cli/exit_code.h"

namespace sauva {

int Report(const absl::Status& status) {
  if (status.ok()) return kExitDone;
  std::cerr << "sauva: " << absl::StatusCodeToString(status.code()) << ": " << status.message()
            << std::endl;
  return kExitFailed;
}

int ReportUsage(const std::string& message) {
  std::cerr << "sauva: " << message << std::endl;
  return kExitUsage;
}

}  // namespace sauva
