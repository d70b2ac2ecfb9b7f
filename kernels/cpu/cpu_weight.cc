#include "kernels/cpu/cpu_weight.h"

#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "kernels/numerics.h"
#include "kernels/weight_source.h"

namespace sauva {
namespace {

constexpr uint8_t kCodeOffset = 128;

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

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
  RETURN_IF_ERROR(format == WeightFormat::kNative ? weight->CopyNative(source)
                                                  : weight->PackInt8(source));
  return weight;
}

int64_t CpuWeight::stride() const { return RoundUp(columns_, kLanes); }

const std::byte* CpuWeight::row(int64_t row) const {
  return values_.data() + row * stride() * BytesOf(storage_);
}

int64_t CpuWeight::groups() const { return RoundUp(columns_, kInt8Group) / kInt8Group; }

const uint8_t* CpuWeight::panel(int64_t panel) const {
  return values_.as<uint8_t>().data() + panel * kLanes * groups() * kInt8Group;
}

absl::Status CpuWeight::CopyNative(const WeightSource& source) {
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

int64_t CpuWeight::PackedOffset(int64_t row, int64_t column) const {
  const int64_t quad = column / 4;
  return ((row / kLanes * groups() * (kInt8Group / 4) + quad) * kLanes + row % kLanes) * 4 +
         column % 4;
}

absl::Status CpuWeight::PackInt8(const WeightSource& source) {
  const int64_t padded_rows = RoundUp(rows_, kLanes);
  ASSIGN_OR_RETURN(values_, HostMemory::Allocate(padded_rows * groups() * kInt8Group));
  ASSIGN_OR_RETURN(scales_, HostMemory::Allocate(padded_rows * int64_t{sizeof(float)}));
  const std::span<uint8_t> packed = values_.as<uint8_t>();
  std::memset(packed.data(), kCodeOffset, packed.size());
  return ForEachInt8Row(source, [&](int64_t row, std::span<const int8_t> codes, float scale) {
    scales_.as<float>()[static_cast<size_t>(row)] = scale;
    for (int64_t i = 0; i < columns_; ++i) {
      packed[static_cast<size_t>(PackedOffset(row, i))] =
          static_cast<uint8_t>(codes[static_cast<size_t>(i)] + kCodeOffset);
    }
  });
}

float CpuWeight::Int8Element(int64_t row, int64_t column) const {
  const int code = values_.as<uint8_t>()[static_cast<size_t>(PackedOffset(row, column))];
  return static_cast<float>(code - kCodeOffset) * scales_.as<float>()[static_cast<size_t>(row)];
}

}  // namespace sauva
