#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/spec.h"

namespace sauva {

// Every tensor that a model of this spec must have, of random f16 between 1/128 and 1/64 of
// either sign: a model's size and speed without its weights. All tensors share their bytes.
class RandomCheckpoint : public Checkpoint {
 public:
  explicit RandomCheckpoint(const ModelSpec& spec);

  absl::StatusOr<StoredTensor> Find(const std::string& name) const override;
  std::vector<std::string> Names() const override;

 private:
  std::vector<uint64_t> words_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace sauva
