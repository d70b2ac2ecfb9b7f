#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/host_memory.h"

namespace sauva {

// Blocks of 16 tokens: [block, KV head] of keys [head_dim, 16 tokens] and then values [16
// tokens, head_dim].
class CpuKvCache : public KvCache {
 public:
  // Errors: INVALID_ARGUMENT for an impossible shape, RESOURCE_EXHAUSTED with the bytes.
  static absl::StatusOr<std::unique_ptr<CpuKvCache>> Create(const KvShape& shape);

  const KvShape& shape() const { return shape_; }
  int64_t head_bytes() const { return block_bytes() / shape_.num_kv_heads; }
  int64_t block_bytes() const { return shape_.size_bytes() / shape_.num_blocks; }
  std::byte* head(int block, int kv_head) const {
    return memory_.data() + block * block_bytes() + kv_head * head_bytes();
  }

 private:
  CpuKvCache(const KvShape& shape, HostMemory memory);

  const KvShape shape_;
  const HostMemory memory_;
};

}  // namespace sauva
