#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/tls.h"
#include "proto/control.h"
#include "tests/e2e/process.h"
#include "tests/temporary_directory.h"

namespace sauva {

// How long anything in a test may take before it counts as stuck. Long, since sanitizers
// and busy machines are slow; nothing waits for it when all is well.
inline constexpr absl::Duration kPatience = absl::Seconds(120);

// Asks `done` until it is true; false once `limit` has passed.
bool Eventually(const std::function<bool()>& done, absl::Duration limit = kPatience);

// The directory of the model that clusters of tests serve: the demo model.
std::string ModelDirectory();

// A value of a metrics page: the sum over all label sets of `name` whose label text
// contains `labels`. Nothing when the page cannot be read or has no such metric.
std::optional<double> ScrapeMetric(const std::string& address, const std::string& name,
                                   const std::string& labels = "");

// A whole cluster of real processes on free ports of this machine, started by `sauva up`.
class TestCluster {
 public:
  // `flags` follow `sauva up --json`, the free ports and the demo model, unless they name
  // others. Waits for "ready".
  // Errors: what `up` wrote to its standard error when it ended instead.
  static absl::StatusOr<std::unique_ptr<TestCluster>> Start(const std::vector<std::string>& flags,
                                                            const TlsOptions& tls = {});
  ~TestCluster();

  const std::string& gateway() const { return gateway_; }
  const std::string& http() const { return http_; }
  const std::string& coordinator() const { return coordinator_; }
  const std::string& log_directory() const { return directory_.path(); }

  // The cluster as its coordinator sees it now.
  absl::StatusOr<ClusterStatus> Status() const;
  // The ready pipeline, once there is one; waits. A test fails when there are several.
  PipelineStatus Pipeline() const;
  // Waits until so many pipelines are ready and say that they serve.
  bool AwaitReadyPipelines(int count) const;
  // Waits until the one pipeline runs no sequence and all its KV blocks are free.
  bool AwaitIdle() const;

  // Process ids by their metrics address; kept up to date with restarts by ReadEvents.
  pid_t PidOf(const std::string& metrics_address) const;
  pid_t PidOfRole(const std::string& role) const;  // the first one
  std::vector<std::string> MetricsOfRole(const std::string& role) const;
  void Kill(pid_t pid, int signal) const;
  // Waits for an event line, as {"event":"restarted","role":"worker"}.
  std::optional<nlohmann::json> AwaitEvent(const std::string& event, const std::string& role);

  // Asks `up` to end in order; its exit code, or nothing when it does not end in time.
  std::optional<int> Stop();
  // All processes' logs, for messages of failed tests.
  std::string Logs() const;

 private:
  TestCluster() = default;

  TemporaryDirectory directory_;
  TlsOptions tls_;
  std::unique_ptr<TestProcess> up_;
  std::string gateway_;
  std::string http_;
  std::string coordinator_;
  struct Process {
    std::string role;
    pid_t pid = 0;
    std::string metrics;
  };
  std::vector<Process> processes_;
};

}  // namespace sauva
