#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/host_memory.h"

namespace sauva {

// A matrix as the cpu kernels stream it: numbers as rows as stored, each padded with -0 to
// whole lanes, or a packed quantized matrix.
class CpuWeight : public Weight {
 public:
  // Errors: INVALID_ARGUMENT naming the tensor, RESOURCE_EXHAUSTED with the bytes.
  static absl::StatusOr<std::unique_ptr<CpuWeight>> Create(const WeightSource& source,
                                                           WeightFormat format);

  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t size_bytes() const override;

  // Null for numbers; what follows is for numbers only.
  const PackedMatrix* packed() const { return packed_.get(); }
  Storage storage() const { return storage_; }
  int64_t stride() const;  // elements from row to row
  const std::byte* row(int64_t row) const;

 private:
  explicit CpuWeight(const WeightSource& source);
  absl::Status CopyNumbers(const WeightSource& source);

  const int64_t rows_;
  const int64_t columns_;
  Storage storage_ = Storage::kF32;
  HostMemory values_;
  std::unique_ptr<PackedMatrix> packed_;
};

}  // namespace sauva
