#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/host_memory.h"

namespace sauva {

// A matrix as the cpu kernels stream it. Native: rows as stored, each padded with -0 to
// whole lanes. Int8: panels of 16 rows, [panel, group, 8, 16 rows, 4 columns] of code + 128.
class CpuWeight : public Weight {
 public:
  // Errors: INVALID_ARGUMENT naming the tensor, RESOURCE_EXHAUSTED with the bytes.
  static absl::StatusOr<std::unique_ptr<CpuWeight>> Create(const WeightSource& source,
                                                           WeightFormat format);

  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t size_bytes() const override { return values_.size_bytes() + scales_.size_bytes(); }

  bool is_int8() const { return scales_.size_bytes() > 0; }
  Storage storage() const { return storage_; }
  int64_t stride() const;                   // elements from row to row, native only
  const std::byte* row(int64_t row) const;  // native only

  int64_t groups() const;  // of 32 columns, int8 only
  const uint8_t* panel(int64_t panel) const;
  const float* scales() const { return scales_.as<float>().data(); }
  // One element, int8 only.
  float Int8Element(int64_t row, int64_t column) const;

 private:
  explicit CpuWeight(const WeightSource& source);
  absl::Status CopyNative(const WeightSource& source);
  absl::Status PackInt8(const WeightSource& source);
  int64_t PackedOffset(int64_t row, int64_t column) const;

  const int64_t rows_;
  const int64_t columns_;
  Storage storage_ = Storage::kF32;
  HostMemory values_;
  HostMemory scales_;  // [rows padded to 16] f32, int8 only
};

}  // namespace sauva
