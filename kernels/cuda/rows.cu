#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/rows.h"

namespace sauva::cuda {
namespace {

constexpr int kRowThreads = 128;
constexpr int kNormChunk = 2048;  // columns in shared memory at a time; whole lanes

// The index of the first column of this thread, and the step to its next.
__device__ __forceinline__ int FirstColumn() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int ColumnStep() { return static_cast<int>(blockDim.x); }

// Adds up term(x[i]) in 16 lanes, which are the block's first 16 threads; the others feed
// them. Returns the sum to every thread.
template <class AddTo>
__device__ float LaneSum(const float* x, int columns, AddTo add_to) {
  auto* staged = reinterpret_cast<float*>(DynamicShared());
  const int thread = static_cast<int>(threadIdx.x);
  float lane = 0;
  for (int first = 0; first < columns; first += kNormChunk) {
    const int count = columns - first < kNormChunk ? columns - first : kNormChunk;
    for (int i = thread; i < count; i += ColumnStep()) staged[i] = x[first + i];
    SyncThreads();
    if (thread < kLanes) {
#pragma unroll 4
      for (int i = thread; i < count; i += kLanes) lane = add_to(lane, staged[i]);
    }
    SyncThreads();
  }
  const float sum = TreeSum(lane);
  if (thread == 0) staged[0] = sum;
  SyncThreads();
  const float result = staged[0];
  SyncThreads();
  return result;
}

__global__ void Norm(NormLaunch args) {
  const int64_t row = blockIdx.x;
  const float* x = args.x.data + row * args.x.stride;
  float* out = args.out.data + row * args.out.stride;
  const auto count = static_cast<float>(args.x.columns);
  float mean = 0;
  if (args.subtract_mean) {
    mean = LaneSum(x, args.x.columns, [](float sum, float value) { return sum + value; }) / count;
  }
  const bool centre = args.subtract_mean;
  const float squares = LaneSum(x, args.x.columns, [mean, centre](float sum, float value) {
    const float centered = centre ? value - mean : value;
    return Fma(centered, centered, sum);
  });
  const float inverse = 1.0f / SquareRoot(squares / count + args.epsilon);
  for (int i = FirstColumn(); i < args.x.columns; i += ColumnStep()) {
    const float unit = (centre ? x[i] - mean : x[i]) * inverse;
    out[i] = args.bias != nullptr ? Fma(unit, args.gain[i], args.bias[i]) : unit * args.gain[i];
  }
}

__global__ void Add(RowsView x, RowsView y) {
  float* to = x.data + static_cast<int64_t>(blockIdx.x) * x.stride;
  const float* from = y.data + static_cast<int64_t>(blockIdx.x) * y.stride;
  for (int i = FirstColumn(); i < x.columns; i += ColumnStep()) to[i] = to[i] + from[i];
}

__global__ void SelectRows(RowsView x, const int32_t* rows, RowsView out) {
  const float* from = x.data + rows[blockIdx.x] * x.stride;
  float* to = out.data + static_cast<int64_t>(blockIdx.x) * out.stride;
  for (int i = FirstColumn(); i < out.columns; i += ColumnStep()) to[i] = from[i];
}

__global__ void Activate(ActivationLaunch args) {
  const int64_t row = blockIdx.x;
  const float* gate = args.gate.data + row * args.gate.stride;
  const float* up = args.up.data == nullptr ? nullptr : args.up.data + row * args.up.stride;
  float* out = args.out.data + row * args.out.stride;
  const int step = ColumnStep() * static_cast<int>(gridDim.y);
  for (int i = static_cast<int>(blockIdx.y) * ColumnStep() + FirstColumn(); i < args.gate.columns;
       i += step) {
    const float activated = Activated(args.kind, gate[i]);
    out[i] = up != nullptr ? activated * up[i] : activated;
  }
}

__global__ void Rope(RopeLaunch args) {
  const int64_t token = blockIdx.x;
  const float* cosines = args.turns + int64_t{args.positions[token]} * 2 * args.pairs;
  const float* sines = cosines + args.pairs;
  for (int i = FirstColumn(); i < args.num_heads * args.pairs; i += ColumnStep()) {
    const int pair = i % args.pairs;
    float* x = args.x.data + token * args.x.stride + i / args.pairs * args.head_dim;
    float& first = x[args.interleaved ? 2 * pair : pair];
    float& second = x[args.interleaved ? 2 * pair + 1 : pair + args.pairs];
    const float turned = Fma(first, cosines[pair], -(second * sines[pair]));
    second = Fma(second, cosines[pair], first * sines[pair]);
    first = turned;
  }
}

LaunchShape PerRow(int rows, void* stream) {
  return {.grid = {static_cast<unsigned>(rows), 1, 1}, .threads = kRowThreads, .stream = stream};
}

}  // namespace

void LaunchNorm(const NormLaunch& args, void* stream) {
  if (args.x.rows == 0) return;
  LaunchShape shape = PerRow(args.x.rows, stream);
  const int staged = args.x.columns < kNormChunk ? args.x.columns : kNormChunk;
  shape.shared_bytes = staged * static_cast<int>(sizeof(float));
  Launch(Norm, shape, args);
}

void LaunchAdd(const RowsView& x, const RowsView& y, void* stream) {
  if (x.rows > 0) Launch(Add, PerRow(x.rows, stream), x, y);
}

void LaunchSelectRows(const RowsView& x, const int32_t* rows, const RowsView& out, void* stream) {
  if (out.rows > 0) Launch(SelectRows, PerRow(out.rows, stream), x, rows, out);
}

void LaunchActivation(const ActivationLaunch& args, void* stream) {
  if (args.gate.rows == 0) return;
  // Few rows alone would leave most of the device idle.
  constexpr int kColumnsPerBlock = 4 * kRowThreads;
  LaunchShape shape = PerRow(args.gate.rows, stream);
  shape.grid.y =
      static_cast<unsigned>((args.gate.columns + kColumnsPerBlock - 1) / kColumnsPerBlock);
  Launch(Activate, shape, args);
}

void LaunchRope(const RopeLaunch& args, void* stream) {
  if (args.x.rows > 0) Launch(Rope, PerRow(args.x.rows, stream), args);
}

}  // namespace sauva::cuda
