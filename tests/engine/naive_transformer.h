#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/spec.h"
#include "proto/generation.h"

namespace sauva {

// A checkpoint of f32 tensors in memory.
class MapCheckpoint : public Checkpoint {
 public:
  void Set(const std::string& name, std::vector<int64_t> shape, std::vector<float> values);
  void Erase(const std::string& name) { tensors_.erase(name); }

  absl::StatusOr<StoredTensor> Find(const std::string& name) const override;
  std::vector<std::string> Names() const override;
  const std::vector<float>& Values(const std::string& name) const;

 private:
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors_;
};

// Random tensors for everything a model of this spec has, sandwich norms included.
MapCheckpoint RandomCheckpoint(const ModelSpec& spec, uint64_t seed);

// Logits after the last token: the whole text at once, without a cache, in double, written
// from the papers and not from the engine.
std::vector<double> NaiveLogits(const ModelSpec& spec, const MapCheckpoint& checkpoint,
                                const std::vector<TokenId>& tokens);

}  // namespace sauva
