#pragma once

#include <vector>

#include "kernels/backend.h"

namespace sauva::reference {

// Keys and values by (block, token in block, KV head), already rounded to the cache's type.
class ReferenceKv : public KvCache {
 public:
  explicit ReferenceKv(const KvShape& shape);

  const KvShape& shape() const { return shape_; }
  float* key(int block, int token, int head) { return keys_.data() + Offset(block, token, head); }
  float* value(int block, int token, int head) {
    return values_.data() + Offset(block, token, head);
  }
  const float* key(int block, int token, int head) const {
    return keys_.data() + Offset(block, token, head);
  }
  const float* value(int block, int token, int head) const {
    return values_.data() + Offset(block, token, head);
  }
  // Copies head_dim numbers as the cache keeps them.
  void Store(const float* from, float* to) const;

 private:
  size_t Offset(int block, int token, int head) const;

  const KvShape shape_;
  std::vector<float> keys_, values_;
};

// One query row of one head.
struct Query {
  const float* vector = nullptr;  // [head_dim]
  int kv_head = 0;
  int position = 0;
  int window = 0;
  float score_scale = 0;
  const int32_t* blocks = nullptr;  // of the sequence
  float* out = nullptr;             // [head_dim]
};

// Attends to every visible key of the sequence, in the order of the numerics contract.
void Attend(const ReferenceKv& cache, const Query& query);

}  // namespace sauva::reference
