#include "net/tls.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "net/pem.h"

namespace sauva {
namespace {

absl::Status CheckPair(const TlsOptions& tls) {
  if (tls.certificate.empty() == tls.key.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("--tls-cert and --tls-key go together; only one was given");
}

struct KeyPair {
  std::string chain;
  std::string key;
};

absl::StatusOr<KeyPair> ReadKeyPair(const TlsOptions& tls) {
  ASSIGN_OR_RETURN(PemFile chain, ReadPem("--tls-cert", tls.certificate));
  ASSIGN_OR_RETURN(PemFile key, ReadPem("--tls-key", tls.key));
  RETURN_IF_ERROR(CheckCertificate(chain, key, absl::Now()));
  return KeyPair{.chain = std::move(chain.text), .key = std::move(key.text)};
}

absl::StatusOr<std::string> ReadAuthorities(const TlsOptions& tls) {
  ASSIGN_OR_RETURN(PemFile authorities, ReadPem("--tls-ca", tls.ca));
  RETURN_IF_ERROR(CheckAuthorities(authorities, absl::Now()));
  return std::move(authorities.text);
}

}  // namespace

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  return absl::StartsWith(host, "127.") || host == "localhost" || host == "[::1]";
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const TlsOptions& tls, ClientCertificate client, const std::string& address) {
  RETURN_IF_ERROR(CheckPair(tls));
  if (tls.certificate.empty()) {
    if (!IsLoopback(address) && !tls.insecure) {
      return absl::FailedPreconditionError(absl::StrCat(
          "refusing plaintext on ", address,
          ", which is not loopback: give --tls-cert, --tls-key and --tls-ca, or --insecure"));
    }
    return grpc::InsecureServerCredentials();
  }
  grpc::SslServerCredentialsOptions options(
      client == ClientCertificate::kRequired
          ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
          : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  ASSIGN_OR_RETURN(KeyPair pair, ReadKeyPair(tls));
  options.pem_key_cert_pairs.push_back(
      {.private_key = std::move(pair.key), .cert_chain = std::move(pair.chain)});
  if (client == ClientCertificate::kRequired) {
    if (tls.ca.empty()) {
      return absl::InvalidArgumentError(
          "--tls-ca is needed beside --tls-cert: the services know each other by its signature");
    }
    ASSIGN_OR_RETURN(options.pem_root_certs, ReadAuthorities(tls));
  }
  return grpc::SslServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const TlsOptions& tls) {
  RETURN_IF_ERROR(CheckPair(tls));
  if (tls.ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  ASSIGN_OR_RETURN(options.pem_root_certs, ReadAuthorities(tls));
  if (!tls.certificate.empty()) {
    ASSIGN_OR_RETURN(KeyPair pair, ReadKeyPair(tls));
    options.pem_cert_chain = std::move(pair.chain);
    options.pem_private_key = std::move(pair.key);
  }
  return grpc::SslCredentials(options);
}

}  // namespace sauva
