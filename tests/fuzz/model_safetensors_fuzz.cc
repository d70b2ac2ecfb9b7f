// A safetensors file of any bytes is refused, or every tensor lies within it.

#include <cstdint>
#include <span>

#include "base/check.h"
#include "model/safetensors_header.h"
#include "tests/fuzz/driver.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

void CheckHeader(const SafetensorsHeader& header, uint64_t file_bytes) {
  uint64_t covered = header.data_begin;
  for (const SafetensorsEntry& entry : header.entries) {
    uint64_t elements = 1;
    for (const int64_t dimension : entry.shape) elements *= static_cast<uint64_t>(dimension);
    Check(entry.begin <= entry.end && entry.end <= file_bytes, "a tensor lies within the file");
    Check(entry.begin >= header.data_begin, "a tensor lies behind the header");
    Check(elements * SafetensorsElementBytes(entry.dtype) == entry.end - entry.begin,
          "a tensor is as long as its shape says");
    covered += entry.end - entry.begin;
  }
  Check(covered == file_bytes, "tensors cover the file");
}

}  // namespace

std::vector<std::string> SeedInputs() {
  const std::string a = Tensor("a", "F32", "[2,2]", "[0,16]");
  const std::string b = Tensor("b", "BF16", "[4]", "[16,24]");
  return {SafetensorsBytes("{}", ""), SafetensorsBytes("{" + a + "}", std::string(16, 'x')),
          SafetensorsBytes("{\"__metadata__\":{\"format\":\"pt\"}," + a + "," + b + "}",
                           std::string(24, 'x')),
          SafetensorsBytes("{" + Tensor("e", "I8", "[0,7]", "[0,0]") + "}", "")};
}

}  // namespace sauva

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto header = sauva::ParseSafetensorsHeader("fuzz.safetensors", file);
  if (header.ok()) sauva::CheckHeader(*header, size);
  return 0;
}
