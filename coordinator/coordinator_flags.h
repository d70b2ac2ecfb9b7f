#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/coordinator_process.h"

namespace sauva {

// The command line of sauva-coordinator.
class CoordinatorFlags {
 public:
  // Declares the flags on `app`; both must outlive parsing.
  explicit CoordinatorFlags(CLI::App& app);

  // After parsing. Errors: INVALID_ARGUMENT naming flag and value.
  absl::StatusOr<CoordinatorProcessConfig> Config() const;

 private:
  void AddServing(CLI::App& app);
  void AddCluster(CLI::App& app);

  CoordinatorProcessConfig config_;
  std::string kv_memory_ = "0";
  int heartbeat_ms_ = 250;
  int lease_ms_ = 2000;
  bool mix_ = false;
  std::string link_ = "auto";
  std::string drain_timeout_ = "30s";
};

}  // namespace sauva
