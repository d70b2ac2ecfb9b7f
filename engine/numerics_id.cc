#include "engine/numerics_id.h"

#include <openssl/evp.h>

#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {

std::string NumericsId(const NumericsFacts& facts) {
  std::string text;
  for (const std::string* fact :
       {&facts.model_digest, &facts.weight_format, &facts.activation_quantization, &facts.kv_type,
        &facts.backend_class}) {
    absl::StrAppend(&text, fact->size(), ":", *fact, ";");
  }
  absl::StrAppend(&text, facts.version);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  const int done =
      EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr);
  Check(done == 1 && size >= 8, "SHA-256 is available");
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), 8});
}

}  // namespace sauva
