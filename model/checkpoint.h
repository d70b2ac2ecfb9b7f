#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace sauva {

// A tensor inside a checkpoint: a view of mapped bytes, valid as long as the Checkpoint.
struct StoredTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;         // row-major
  std::span<const std::byte> bytes;   // exactly product(shape) * SizeOf(dtype); maybe unaligned
};

// Read access to a model's tensors by canonical name (model/tensor_names.h). Nothing is
// read from disk until the bytes are touched, so a stage reads only its own layers.
// Thread: const methods are safe from any thread.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // Errors: NOT_FOUND naming the tensor.
  virtual absl::StatusOr<StoredTensor> Find(const std::string& name) const = 0;

  // Canonical names of all tensors, sorted.
  virtual std::vector<std::string> Names() const = 0;
};

}  // namespace sauva
