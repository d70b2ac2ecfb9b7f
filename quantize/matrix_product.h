#pragma once

#include <cstdint>

namespace sauva {

// C += factor * A BT over row-major floats.
struct ProductArgs {
  const float* a = nullptr;  // [rows, inner]
  int64_t a_stride = 0;      // floats from row to row
  int64_t rows = 0;
  const float* b = nullptr;  // [columns, inner]
  int64_t b_stride = 0;
  int64_t columns = 0;
  int64_t inner = 0;  // a multiple of 16
  float factor = 1;
  float* c = nullptr;  // [rows, columns]; overlaps neither a nor b where they are read
  int64_t c_stride = 0;
};

// Computes on this thread with the CPU backend's kernels, so the order of each sum is theirs:
// the same bits on every instruction set.
void AddProduct(const ProductArgs& args);

}  // namespace sauva
