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
  // Of a block of one head.
  int64_t head_bytes() const {
    return shape_.size_bytes() / shape_.num_blocks / shape_.num_kv_heads;
  }
  // All blocks of a head lie together: a sequence's are mostly in order, so that memory is read
  // on and on, as processors expect.
  std::byte* head(int block, int kv_head) const {
    return memory_.data() + (int64_t{kv_head} * shape_.num_blocks + block) * head_bytes();
  }

 private:
  CpuKvCache(const KvShape& shape, HostMemory memory);

  const KvShape shape_;
  const HostMemory memory_;
};

}  // namespace sauva
