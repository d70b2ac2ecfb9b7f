#include "kernels/cpu/cpu_kv_cache.h"

#include <utility>

#include "base/status_macros.h"
#include "kernels/kv_shape.h"

namespace sauva {

CpuKvCache::CpuKvCache(const KvShape& shape, HostMemory memory)
    : shape_(shape), memory_(std::move(memory)) {}

absl::StatusOr<std::unique_ptr<CpuKvCache>> CpuKvCache::Create(const KvShape& shape) {
  RETURN_IF_ERROR(ValidateKvShape(shape));
  ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Allocate(shape.size_bytes()));
  return std::unique_ptr<CpuKvCache>(new CpuKvCache(shape, std::move(memory)));
}

}  // namespace sauva
