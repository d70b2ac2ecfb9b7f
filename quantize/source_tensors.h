#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/safetensors.h"

namespace sauva {

// The tensors of a model's files by what they are to us, under their own names.
class SourceTensors {
 public:
  struct Tensor {
    std::string name;       // in the file
    std::string canonical;  // empty for one that no forward pass uses
    std::string dtype;
    std::vector<int64_t> shape;
    std::span<const std::byte> bytes;
  };

  // Errors: those of OpenSafetensors.
  static absl::StatusOr<SourceTensors> Open(const std::string& directory, const Model& model);

  const std::vector<Tensor>& layer(int index) const { return layers_[static_cast<size_t>(index)]; }
  // Embedding, head, final norm and what we do not know.
  const std::vector<Tensor>& rest() const { return rest_; }
  // As Checkpoint has it.
  void DropPages() const;
  // "model.layers.0.mlp.up_proj" of a canonical matrix.
  const std::string& module(const std::string& canonical) const { return modules_.at(canonical); }

 private:
  std::vector<SafetensorsFile> files_;
  std::vector<std::vector<Tensor>> layers_;
  std::vector<Tensor> rest_;
  std::map<std::string, std::string> modules_;
};

}  // namespace sauva
