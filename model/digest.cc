#include "model/digest.h"

#include <openssl/evp.h>

#include <memory>
#include <span>
#include <string_view>

#include "absl/strings/escaping.h"
#include "base/check.h"

namespace sauva {
namespace {

// SHA-256 over fields; each is preceded by its length, so that no two lists of fields
// give the same bytes.
class Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    Check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
          "SHA-256 is available");
  }

  void Number(uint64_t value) { Raw(&value, sizeof(value)); }
  void Field(std::span<const std::byte> bytes) {
    Number(bytes.size());
    Raw(bytes.data(), bytes.size());
  }
  void Field(std::string_view text) { Field(std::as_bytes(std::span(text))); }

  std::string Hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    Check(EVP_DigestFinal_ex(context_.get(), digest, &size) == 1, "SHA-256 can be finished");
    return absl::BytesToHexString({reinterpret_cast<const char*>(digest), size});
  }

 private:
  void Raw(const void* data, size_t size) {
    Check(EVP_DigestUpdate(context_.get(), data, size) == 1, "SHA-256 takes bytes");
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string ModelDigest(const ModelFiles& files, const std::vector<SafetensorsFile>& weights) {
  Hasher hasher;
  hasher.Number(files.size());
  for (const auto& [name, content] : files) {
    hasher.Field(name);
    hasher.Field(content);
  }
  hasher.Number(weights.size());
  for (const SafetensorsFile& file : weights) {
    hasher.Field(file.file_name);
    hasher.Number(file.file.bytes().size());
    hasher.Field(file.HeaderBytes());
  }
  return hasher.Hex();
}

}  // namespace sauva
