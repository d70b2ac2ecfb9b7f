#include "net/pem.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Certificate = std::unique_ptr<X509, Free>;

// gRPC looks at OpenSSL's errors of its thread; those found here are none of its own.
struct ForgetErrors {
  ~ForgetErrors() { ERR_clear_error(); }
};

std::unique_ptr<BIO, Free> Open(const PemFile& file) {
  return std::unique_ptr<BIO, Free>(
      BIO_new_mem_buf(file.text.data(), static_cast<int>(file.text.size())));
}

absl::Status Wrong(const PemFile& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file.name, ": ", what));
}

absl::StatusOr<std::vector<Certificate>> Certificates(const PemFile& file) {
  const ForgetErrors forget;
  const auto bio = Open(file);
  std::vector<Certificate> found;
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    found.emplace_back(next);
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return Wrong(file, absl::StrCat("certificate ", found.size() + 1, " in it cannot be read"));
  }
  if (found.empty()) return Wrong(file, "holds no certificate");
  return found;
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? absl::FromTM(parts, absl::UTCTimeZone())
                                            : absl::InfinitePast();
}

absl::Status CheckTime(const PemFile& file, const X509& certificate, absl::Time now) {
  const absl::Time begin = ToTime(X509_get0_notBefore(&certificate));
  const absl::Time end = ToTime(X509_get0_notAfter(&certificate));
  if (now >= begin && now <= end) return absl::OkStatus();
  const auto text = [](absl::Time time) {
    return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
  };
  return Wrong(file, absl::StrCat("its certificate is valid from ", text(begin), " to ", text(end),
                                  "; it is ", text(now)));
}

}  // namespace

absl::StatusOr<PemFile> ReadPem(const std::string& flag, const std::string& path) {
  PemFile file{.name = absl::StrCat(flag, " ", path)};
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  file.text = text.str();
  if (!in || file.text.find("-----BEGIN") == std::string::npos) {
    return Wrong(file, "not a readable PEM file");
  }
  return file;
}

absl::Status CheckCertificate(const PemFile& chain, const PemFile& key, absl::Time now) {
  ASSIGN_OR_RETURN(const std::vector<Certificate> certificates, Certificates(chain));
  RETURN_IF_ERROR(CheckTime(chain, *certificates.front(), now));
  const ForgetErrors forget;
  const auto no_password = [](char*, int, int, void*) { return -1; };
  const std::unique_ptr<EVP_PKEY, Free> parsed(
      PEM_read_bio_PrivateKey(Open(key).get(), nullptr, no_password, nullptr));
  if (parsed == nullptr) return Wrong(key, "holds no private key, or one with a password");
  if (X509_check_private_key(certificates.front().get(), parsed.get()) != 1) {
    return Wrong(key, absl::StrCat("is not the key of the certificate of ", chain.name));
  }
  return absl::OkStatus();
}

absl::Status CheckAuthorities(const PemFile& authorities, absl::Time now) {
  ASSIGN_OR_RETURN(const std::vector<Certificate> certificates, Certificates(authorities));
  absl::Status status;
  for (const Certificate& certificate : certificates) {
    status = CheckTime(authorities, *certificate, now);
    if (status.ok()) return status;
  }
  return status;
}

}  // namespace sauva
