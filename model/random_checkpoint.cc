#include "model/random_checkpoint.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "model/expected_tensors.h"

namespace sauva {
namespace {

size_t BytesOf(const std::vector<int64_t>& shape) {
  size_t bytes = static_cast<size_t>(SizeOf(DType::kF16));
  for (const int64_t dimension : shape) bytes *= static_cast<size_t>(dimension);
  return bytes;
}

}  // namespace

RandomCheckpoint::RandomCheckpoint(const ModelSpec& spec) {
  const std::vector<ExpectedTensor> expected = ExpectedTensors(spec);
  size_t most = 0;
  for (const ExpectedTensor& tensor : expected) most = std::max(most, BytesOf(tensor.shape));
  // Any sign and mantissa, the exponent of 1/128.
  constexpr uint64_t kFree = 0x83ff83ff83ff83ffu;
  constexpr uint64_t kExponent = 0x2000200020002000u;
  std::mt19937_64 random(1);
  words_.resize((most + sizeof(uint64_t) - 1) / sizeof(uint64_t));
  for (uint64_t& word : words_) word = (random() & kFree) | kExponent;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(words_));
  for (const ExpectedTensor& tensor : expected) {
    tensors_[tensor.name] = {
        .dtype = DType::kF16, .shape = tensor.shape, .bytes = bytes.first(BytesOf(tensor.shape))};
  }
}

absl::StatusOr<StoredTensor> RandomCheckpoint::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  return absl::NotFoundError(absl::StrCat("tensor ", name, " is none of the model's"));
}

std::vector<std::string> RandomCheckpoint::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

}  // namespace sauva
