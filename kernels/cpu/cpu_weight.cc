#include "kernels/cpu/cpu_weight.h"

#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "kernels/numerics.h"
#include "kernels/round_to_nearest.h"
#include "kernels/weight_source.h"

namespace sauva {
namespace {

Storage StorageOf(DType dtype) {
  if (dtype == DType::kF16) return Storage::kF16;
  if (dtype == DType::kBF16) return Storage::kBF16;
  return Storage::kF32;
}

int64_t BytesOf(Storage storage) { return storage == Storage::kF32 ? 4 : 2; }

}  // namespace

CpuWeight::CpuWeight(const WeightSource& source)
    : rows_(source.rows), columns_(source.columns), storage_(StorageOf(source.dtype)) {}

absl::StatusOr<std::unique_ptr<CpuWeight>> CpuWeight::Create(const WeightSource& source,
                                                             WeightFormat format) {
  RETURN_IF_ERROR(ValidateWeightSource(source));
  auto weight = std::unique_ptr<CpuWeight>(new CpuWeight(source));
  if (source.quantized != nullptr) {
    ASSIGN_OR_RETURN(weight->packed_, PackedMatrix::Create(*source.quantized));
  } else if (format == WeightFormat::kInt8) {
    ASSIGN_OR_RETURN(const QuantizedMatrix matrix, RoundToInt8(source));
    ASSIGN_OR_RETURN(weight->packed_, PackedMatrix::Create(matrix));
  } else {
    RETURN_IF_ERROR(weight->CopyNumbers(source));
  }
  return weight;
}

int64_t CpuWeight::size_bytes() const {
  return packed_ ? packed_->size_bytes() : values_.size_bytes();
}

int64_t CpuWeight::stride() const { return (columns_ + kLanes - 1) / kLanes * kLanes; }

const std::byte* CpuWeight::row(int64_t row) const {
  return values_.data() + row * stride() * BytesOf(storage_);
}

absl::Status CpuWeight::CopyNumbers(const WeightSource& source) {
  const int64_t element = BytesOf(storage_);
  ASSIGN_OR_RETURN(values_, HostMemory::Allocate(rows_ * stride() * element));
  const auto row_bytes = static_cast<size_t>(columns_ * element);
  for (int64_t r = 0; r < rows_; ++r) {
    std::byte* to = values_.data() + r * stride() * element;
    std::memcpy(to, source.bytes.data() + r * columns_ * element, row_bytes);
    for (int64_t i = columns_ + 1; i <= stride(); ++i) {
      to[i * element - 1] = std::byte{0x80};  // the sign bit: -0
    }
  }
  return absl::OkStatus();
}

}  // namespace sauva
