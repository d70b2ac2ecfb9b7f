#include "net/tls.h"

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

absl::StatusOr<std::string> ReadPem(const std::string& flag, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (!in || text.str().find("-----BEGIN") == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": not a readable PEM file"));
  }
  return text.str();
}

absl::Status CheckPair(const TlsOptions& tls) {
  if (tls.certificate.empty() == tls.key.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("--tls-cert and --tls-key go together; only one was given");
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
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  ASSIGN_OR_RETURN(pair.cert_chain, ReadPem("--tls-cert", tls.certificate));
  ASSIGN_OR_RETURN(pair.private_key, ReadPem("--tls-key", tls.key));
  options.pem_key_cert_pairs.push_back(pair);
  if (client == ClientCertificate::kRequired) {
    if (tls.ca.empty()) {
      return absl::InvalidArgumentError(
          "--tls-ca is needed beside --tls-cert: the services know each other by its signature");
    }
    ASSIGN_OR_RETURN(options.pem_root_certs, ReadPem("--tls-ca", tls.ca));
  }
  return grpc::SslServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const TlsOptions& tls) {
  RETURN_IF_ERROR(CheckPair(tls));
  if (tls.ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  ASSIGN_OR_RETURN(options.pem_root_certs, ReadPem("--tls-ca", tls.ca));
  if (!tls.certificate.empty()) {
    ASSIGN_OR_RETURN(options.pem_cert_chain, ReadPem("--tls-cert", tls.certificate));
    ASSIGN_OR_RETURN(options.pem_private_key, ReadPem("--tls-key", tls.key));
  }
  return grpc::SslCredentials(options);
}

}  // namespace sauva
