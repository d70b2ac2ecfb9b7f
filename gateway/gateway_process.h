#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/metrics.h"
#include "gateway/gateway.h"
#include "gateway/gateway_service.h"
#include "gateway/otlp_client.h"
#include "net/process_health.h"
#include "net/tls.h"

namespace sauva {

struct GatewayConfig {
  std::string listen = "127.0.0.1:7070";
  std::string coordinator = "127.0.0.1:7071";
  std::string metrics = "127.0.0.1:8080";  // where the program serves /metrics
  absl::Duration drain_timeout = absl::Seconds(30);
  TlsOptions tls;
  GatewayOptions gateway;
  GatewayServiceOptions service;
  OtlpOptions otlp;
};

// A whole gateway: its loops, clients and server.
// Thread: its owner's.
class GatewayProcess {
 public:
  // Serves at once; health says SERVING when a pipeline is ready, on the server's own port and
  // as readiness of `health`. Both must outlive it.
  // Errors: UNAVAILABLE naming an address that cannot be bound; as the TLS credentials.
  static absl::StatusOr<std::unique_ptr<GatewayProcess>> Start(const GatewayConfig& config,
                                                               Metrics& metrics,
                                                               ProcessHealth& health);
  ~GatewayProcess();

  // host:port really taken.
  const std::string& address() const;

  // Refuses new requests (UNAVAILABLE, health NOT_SERVING), lets running ones end within
  // the drain timeout, then ends the rest and the server. Returns how many requests were
  // ended so. Once.
  int Drain();

 private:
  struct Parts;
  explicit GatewayProcess(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace sauva
