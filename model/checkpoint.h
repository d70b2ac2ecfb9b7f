#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "kernels/quantized_matrix.h"
#include "model/quantized_outline.h"

namespace sauva {

// A tensor inside a checkpoint: a view of mapped bytes, valid as long as the Checkpoint.
struct StoredTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;        // row-major
  std::span<const std::byte> bytes;  // exactly product(shape) * SizeOf(dtype); maybe unaligned
};

// Read access to a model's tensors by canonical name (model/tensor_names.h). Nothing is
// read from disk until the bytes are touched, so a stage reads only its own layers.
// Thread: const methods are safe from any thread.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // A tensor of floats. Errors: NOT_FOUND naming the tensor, also for a quantized matrix.
  virtual absl::StatusOr<StoredTensor> Find(const std::string& name) const = 0;

  // What is known of a matrix that is stored quantized; nothing for any other name.
  virtual std::optional<QuantizedOutline> FindQuantized(const std::string& name) const {
    static_cast<void>(name);
    return std::nullopt;
  }

  // Reads a matrix that FindQuantized knows, whole. Its codes may take the place of `codes`, so
  // that who reads many needs no new memory for each. Errors: NOT_FOUND for another name;
  // INVALID_ARGUMENT naming tensor and value where the contents contradict their format.
  virtual absl::StatusOr<QuantizedMatrix> ReadQuantized(const std::string& name,
                                                        std::vector<uint8_t> codes) const;

  // What was read so far is not wanted soon: its memory may go. Views stay valid.
  virtual void DropPages() const {}

  // Canonical names of all tensors and quantized matrices, sorted.
  virtual std::vector<std::string> Names() const = 0;
};

}  // namespace sauva
