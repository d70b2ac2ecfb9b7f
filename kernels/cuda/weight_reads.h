#pragma once

#include "simt_target.h"

namespace sauva::cuda {

// Who reads a part of a matrix in one launch: one block, after which it may leave the caches, or
// several that follow one another.
enum class WeightReads { kByOneBlock, kBySeveral };

template <WeightReads kReads, class T>
__device__ __forceinline__ T ReadWeight(const T* from) {
  if constexpr (kReads == WeightReads::kByOneBlock) return LoadOnce(from);
  return *from;
}

}  // namespace sauva::cuda
