#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/families/family.h"
#include "model/quantized/layout.h"
#include "model/safetensors.h"
#include "model/spec.h"

namespace sauva {

// Tensors of safetensors files under their canonical names.
class MappedCheckpoint : public Checkpoint {
 public:
  // Has every tensor of ExpectedTensors(spec), each with the shape that the spec gives it:
  // floats, or where `layout` is not null a matrix stored as the layout says.
  // Errors: those of OpenSafetensors; INVALID_ARGUMENT naming file and tensor, expected and
  // found.
  static absl::StatusOr<std::unique_ptr<MappedCheckpoint>> Open(
      const std::string& directory, const ModelSpec& spec, const Family& family,
      std::unique_ptr<QuantizedLayout> layout);

  absl::StatusOr<StoredTensor> Find(const std::string& name) const override;
  std::optional<QuantizedOutline> FindQuantized(const std::string& name) const override;
  absl::StatusOr<QuantizedMatrix> ReadQuantized(const std::string& name,
                                                std::vector<uint8_t> codes) const override;
  void DropPages() const override;
  std::vector<std::string> Names() const override;

  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  struct Quantized {
    QuantizedParts parts;
    QuantizedOutline outline;
  };

  MappedCheckpoint() = default;

  std::vector<SafetensorsFile> files_;
  std::unique_ptr<QuantizedLayout> layout_;  // null: floats only
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, Quantized> quantized_;
};

}  // namespace sauva
