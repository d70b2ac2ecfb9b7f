#pragma once

#include "kernels/cuda/views.h"
#include "kernels/dtype.h"

// Kernels over rows of activations; each call queues one launch on the stream.
namespace sauva::cuda {

struct NormLaunch {
  RowsView x;
  const float* gain = nullptr;  // [columns]
  const float* bias = nullptr;  // [columns] or null
  bool subtract_mean = false;
  float epsilon = 0;
  RowsView out;  // may be x
};
void LaunchNorm(const NormLaunch& args, void* stream);

// x += y.
void LaunchAdd(const RowsView& x, const RowsView& y, void* stream);

// out[i] = x[rows[i]].
void LaunchSelectRows(const RowsView& x, const int32_t* rows, const RowsView& out, void* stream);

enum class Gate { kSilu, kGelu, kGeluTanh, kRelu };
struct ActivationLaunch {
  Gate kind = Gate::kSilu;
  RowsView gate;
  RowsView up;   // data == null: plain
  RowsView out;  // may be gate or up
};
void LaunchActivation(const ActivationLaunch& args, void* stream);

struct RopeLaunch {
  RowsView x;  // [tokens, heads * head_dim], in place
  int num_heads = 0;
  int head_dim = 0;
  const float* turns = nullptr;  // [positions, 2, pairs]: cos, then sin
  int pairs = 0;
  bool interleaved = false;
  const int32_t* positions = nullptr;  // [tokens]
};
void LaunchRope(const RopeLaunch& args, void* stream);

}  // namespace sauva::cuda
