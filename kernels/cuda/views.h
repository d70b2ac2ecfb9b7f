#pragma once

#include <cstdint>

// What kernels are told, as plain structs of device pointers: readable by the host compiler
// and by the CUDA compiler.
namespace sauva::cuda {

// Rows of kernels/backend.h.
struct RowsView {
  float* data = nullptr;
  int64_t stride = 0;
  int rows = 0;
  int columns = 0;
};

// The step's table in device memory.
struct StepView {
  const int32_t* token_ids = nullptr;      // [tokens]
  const int32_t* positions = nullptr;      // [tokens]
  const int32_t* sequence_rows = nullptr;  // [tokens]; -1: a row that stands for no token
  const int32_t* first_tokens = nullptr;   // [sequences + 1]
  const int32_t* sampled_rows = nullptr;   // [sampled]
};

// The block tables of one KV group: [sequences, max_blocks].
struct BlockTableView {
  const int32_t* ids = nullptr;
  int max_blocks = 0;
};

}  // namespace sauva::cuda
