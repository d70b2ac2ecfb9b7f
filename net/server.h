#pragma once

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/tls.h"

namespace sauva {

struct ServerOptions {
  std::string address;  // host:port; port 0 picks a free one
  TlsOptions tls;
  ClientCertificate client_certificate = ClientCertificate::kRequired;
  int max_message_bytes = 16 << 20;
};

// A gRPC server with grpc.health.v1 (Check, Watch) and reflection beside its services.
class RpcServer {
 public:
  // Listens and serves at once; health of "" is NOT_SERVING until told.
  // `services` must outlive the server.
  // Errors: UNAVAILABLE naming the address (port in use); as MakeServerCredentials.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const ServerOptions& options, const std::vector<grpc::Service*>& services);
  ~RpcServer();

  // host:port with the port really taken.
  const std::string& address() const { return address_; }

  // What health Check and Watch answer for a service name; "" is the whole server.
  enum class Health { kServing, kNotServing };
  void SetHealth(const std::string& service, Health health);

  // Refuses new calls, lets running ones end until `grace` has passed, then cancels them.
  // Waits until all have ended. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer() = default;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  bool shut_down_ = false;
};

}  // namespace sauva
