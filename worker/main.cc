#include <CLI/CLI.hpp>
#include <iostream>

#include "base/log.h"
#include "worker/worker_flags.h"

// Exit codes: 0 done, 1 failed, 2 wrong usage.
int main(int argc, char** argv) {
  CLI::App app("sauva-worker: computes some layers of a model", "sauva-worker");
  sauva::WorkerFlags flags(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto config = flags.Config();
  absl::Status status = config.status();
  if (status.ok()) status = sauva::ConfigureLog("worker", flags.log_level());
  if (!status.ok()) {
    std::cerr << "sauva-worker: " << status.message() << '\n';
    return 2;
  }
  status = sauva::RunWorker(*config);
  if (status.ok()) return 0;
  std::cerr << "sauva-worker: " << status.message() << '\n';
  return 1;
}
