#pragma once

namespace sauva {

// What every subcommand returns to the shell.
enum ExitCode : int {
  kExitDone = 0,
  kExitFailed = 1,
  kExitUsage = 2,
};

}  // namespace sauva
