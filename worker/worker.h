#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/metrics.h"
#include "kernels/cuda_access.h"
#include "net/process_health.h"
#include "net/tls.h"
#include "worker/worker_session.h"

namespace sauva {

struct WorkerConfig {
  std::string coordinator = "127.0.0.1:7071";
  std::string listen = "127.0.0.1:0";
  std::string advertise;  // host:port or host, as others reach it; empty: as it listens
  std::string metrics = "127.0.0.1:0";  // empty: not served
  std::string model_dir;                // parent of model directories
  std::string device = "cpu";
  std::string worker_id;  // empty: made of host and process
  uint64_t memory_bytes = 0;
  CudaOptions cuda;
  std::string nccl_library;  // name or path; empty: the loader's, and none on the host
  std::string nccl_host_id;  // NCCL_HOSTID, which lets ranks share a GPU; empty: they may not
  int threads = 0;           // 0: the cores this process may use
  absl::Duration drain_timeout = absl::Seconds(30);
  TlsOptions tls;
  WorkerOptions session;
};

// A whole worker: its loop, step thread, server, clients and metrics endpoint.
// Thread: its owner's.
class Worker {
 public:
  // Serves, and begins to join the coordinator. Measures what the machine can do first.
  // Errors: UNAVAILABLE naming an address that cannot be bound; INVALID_ARGUMENT or
  // FAILED_PRECONDITION for a device, an address to advertise or TLS files that do not do;
  // NOT_FOUND for a model directory that is not there.
  // `health`, which must outlive it, is told when it is ready: serving a stage, or known to
  // the coordinator and without one for a while (a spare).
  static absl::StatusOr<std::unique_ptr<Worker>> Start(const WorkerConfig& config,
                                                       ProcessHealth& health,
                                                       MetricsNames names = MetricsNames::kOurs);
  ~Worker();

  // host:port really taken; metrics_address is empty when metrics are not served.
  const std::string& address() const;
  const std::string& metrics_address() const;

  // Takes no new streams, lets those that run end within the drain timeout, then leaves its
  // pipeline. Waits for it. Returns how many streams still ran then. Once.
  int Drain();

 private:
  struct Parts;
  explicit Worker(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace sauva
