#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

// What is wrong with certificates and keys, said before gRPC sees them: it tells no more than that
// a server could not be started, or a handshake not be done.
namespace sauva {

struct PemFile {
  std::string name;  // of the flag and the file, as in "--tls-cert a.pem"; begins every message
  std::string text;
};

// Errors: INVALID_ARGUMENT naming the flag and the file, which cannot be read or holds no PEM.
absl::StatusOr<PemFile> ReadPem(const std::string& flag, const std::string& path);

// The chain of a process: its own certificate first, valid at `now`, and that of `key`.
// Errors: INVALID_ARGUMENT naming the file, and what is wrong with it.
absl::Status CheckCertificate(const PemFile& chain, const PemFile& key, absl::Time now);

// Authorities to trust; one of them at least is valid at `now`. Errors: as above.
absl::Status CheckAuthorities(const PemFile& authorities, absl::Time now);

}  // namespace sauva
