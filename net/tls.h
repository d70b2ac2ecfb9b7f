#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace sauva {

// How a process proves itself and whom it trusts. All paths empty: plaintext.
struct TlsOptions {
  std::string certificate;  // PEM file, this process's chain
  std::string key;          // PEM file
  std::string ca;           // PEM file: whom to trust, as client and for client certificates
  bool insecure = false;    // allows plaintext beyond loopback
};

// Whom a server lets in.
enum class ClientCertificate {
  kRequired,  // between Saúva's own services: signed by `ca`
  kNone,      // the gateway's public port
};

// Credentials for listening on `address` (host:port).
// Errors: INVALID_ARGUMENT for half a pair, or naming a file as net/pem.h does;
// FAILED_PRECONDITION for plaintext beyond loopback without `insecure`.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const TlsOptions& tls, ClientCertificate client, const std::string& address);

// Credentials for calling another service; TLS when `ca` is set.
// Errors: INVALID_ARGUMENT as above.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const TlsOptions& tls);

// True for 127.0.0.0/8, [::1] and localhost.
bool IsLoopback(const std::string& address);

}  // namespace sauva
