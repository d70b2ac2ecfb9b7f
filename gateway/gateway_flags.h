#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/status.h"
#include "gateway/gateway_process.h"

namespace sauva {

// The command line of sauva-gateway.
class GatewayFlags {
 public:
  // Declares the flags on `app`; both must outlive parsing.
  explicit GatewayFlags(CLI::App& app);

  // After parsing. Errors: INVALID_ARGUMENT naming flag and value.
  absl::StatusOr<GatewayConfig> Config() const;

 private:
  GatewayConfig config_;
  std::string exact_wait_ = "2s";
  std::string dispatch_wait_ = "1m";
  std::string request_timeout_ = "10m";
  std::string drain_timeout_ = "30s";
  std::string slow_request_ = "inf";
  std::string max_unread_ = "4MiB";
  std::string max_unread_total_ = "256MiB";
};

}  // namespace sauva
