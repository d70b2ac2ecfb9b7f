#include <CLI/CLI.hpp>
#include <iostream>

#include "base/log.h"
#include "coordinator/coordinator_flags.h"

// Exit codes: 0 done, 1 failed, 2 wrong usage.
int main(int argc, char** argv) {
  CLI::App app("sauva-coordinator: decides which worker serves which layers, and routes requests",
               "sauva-coordinator");
  sauva::CoordinatorFlags flags(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto config = flags.Config();
  absl::Status status = config.status();
  if (status.ok()) status = sauva::ConfigureLog("coordinator", flags.log_level());
  if (!status.ok()) {
    std::cerr << status.message() << '\n';
    return 2;
  }
  status = sauva::RunCoordinator(*config);
  if (status.ok()) return 0;
  std::cerr << "sauva-coordinator: " << status.message() << '\n';
  return 1;
}
