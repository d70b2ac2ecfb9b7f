#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "coordinator/coordinator.h"
#include "coordinator/model_catalog.h"
#include "net/process_health.h"
#include "net/tls.h"

namespace sauva {

struct CoordinatorProcessConfig {
  std::string listen = "127.0.0.1:7071";
  std::string metrics = "127.0.0.1:0";  // empty: not served
  TlsOptions tls;
  std::string model_dir;  // holds a directory per model
  std::string model;      // served from the start; empty: none until LoadModel
  int replicas = 1;
  ServingFormat format;
  CoordinatorConfig coordinator;
};

// A whole coordinator: its loop, server and metrics endpoint.
// Thread: its owner's.
class CoordinatorProcess {
 public:
  // Serves at once. `health`, which must outlive it, is told so.
  // Errors: as OpenModel for the model; UNAVAILABLE naming an address that cannot be bound;
  // as the TLS credentials.
  static absl::StatusOr<std::unique_ptr<CoordinatorProcess>> Start(
      const CoordinatorProcessConfig& config, ProcessHealth& health,
      MetricsNames names = MetricsNames::kOurs);
  ~CoordinatorProcess();

  // host:port really taken.
  const std::string& address() const;
  const std::string& metrics_address() const;

  // Answers who waits with UNAVAILABLE and ends every stream; pipelines serve on. Idempotent.
  void ShutDown();

 private:
  struct Parts;
  explicit CoordinatorProcess(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace sauva
