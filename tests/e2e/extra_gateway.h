#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/e2e/cluster.h"

namespace sauva {

// A further gateway in front of a cluster, with flags of its own.
class ExtraGateway {
 public:
  explicit ExtraGateway(const TestCluster& cluster, const std::vector<std::string>& flags = {})
      : process_(Command(cluster, flags), LogFile(cluster)) {
    const auto line = process_.ReadLine(absl::Now() + kPatience);
    EXPECT_TRUE(line.has_value()) << ReadWholeFile(LogFile(cluster));
    if (!line) return;
    const auto listening = nlohmann::json::parse(*line);
    address_ = listening.at("address");
    metrics_ = listening.at("metrics");
  }

  const std::string& address() const { return address_; }
  const std::string& metrics() const { return metrics_; }
  pid_t pid() const { return process_.pid(); }
  void Kill() const { process_.Signal(SIGKILL); }

 private:
  static std::string LogFile(const TestCluster& cluster) {
    return cluster.log_directory() + "/extra-gateway.log";
  }
  static std::vector<std::string> Command(const TestCluster& cluster,
                                          const std::vector<std::string>& flags) {
    std::vector<std::string> command = {absl::StrCat(SAUVA_BINARY_DIR, "/sauva-gateway"),
                                        "--listen",
                                        "127.0.0.1:0",
                                        "--metrics",
                                        "127.0.0.1:0",
                                        "--coordinator",
                                        cluster.coordinator()};
    command.insert(command.end(), flags.begin(), flags.end());
    return command;
  }

  TestProcess process_;
  std::string address_;
  std::string metrics_;
};

}  // namespace sauva
