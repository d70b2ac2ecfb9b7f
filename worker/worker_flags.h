#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "worker/worker.h"

namespace sauva {

// The command line of sauva-worker.
class WorkerFlags {
 public:
  explicit WorkerFlags(CLI::App& app);

  // What was asked for, checked. Errors: INVALID_ARGUMENT naming flag and value.
  absl::StatusOr<WorkerConfig> Config() const;

 private:
  WorkerConfig config_;
  std::string model_;
  std::string memory_;
  std::string cuda_graphs_ = "on";
  std::string step_timeout_ = "10s";
  std::string drain_timeout_ = "30s";
};

}  // namespace sauva
