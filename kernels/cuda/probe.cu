#include "kernels/cuda/probe.h"
#include "simt_target.h"

namespace sauva::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;
constexpr size_t kMostBytes = size_t{256} << 20;
constexpr int kRounds = 4;
constexpr int kFmas = 1 << 14;  // per thread and round, in 8 chains
constexpr int kChains = 8;

__global__ void Read(const float4* from, size_t count, float* sink) {
  float sum = 0;
  const size_t step = size_t{gridDim.x} * kThreads;
  for (size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const float4 four = LoadOnce(from + i);
    sum += four.x + four.y + four.z + four.w;
  }
  if (sum == 1.0f) *sink = sum;  // never: the memory is zero
}

__global__ void MultiplyAdd(float factor, float* sink) {
  float sums[kChains] = {};
  for (int i = 0; i < kFmas / kChains; ++i) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = Fma(sums[chain], factor, factor);
  }
  float sum = 0;
  for (const float part : sums) sum += part;
  if (sum == 1.0f) *sink = sum;  // never: the factor is 0
}

constexpr int kTiles = 1 << 12;  // matrix instructions per warp and round, in kChains chains

__global__ void MultiplyTilesF16(uint32_t pair, float* sink) {
  const uint32_t a[4] = {pair, pair, pair, pair};
  const uint32_t b[2] = {pair, pair};
  float sums[kChains][4] = {};
#pragma unroll 1
  for (int i = 0; i < kTiles / kChains; ++i) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) MultiplyF16(a, b, sums[chain]);
  }
  float sum = 0;
  for (const auto& four : sums) sum += four[0] + four[1] + four[2] + four[3];
  if (sum == 1.0f) *sink = sum;  // never: the operands are 0
}

__global__ void MultiplyTilesInt8(uint32_t codes, float* sink) {
  const uint32_t a[4] = {codes, codes, codes, codes};
  const uint32_t b[2] = {codes, codes};
  int32_t sums[kChains][4] = {};
#pragma unroll 1
  for (int i = 0; i < kTiles / kChains; ++i) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) MultiplyInt8(a, b, sums[chain]);
  }
  int32_t sum = 0;
  for (const auto& four : sums) sum += four[0] + four[1] + four[2] + four[3];
  if (sum == 1) *sink = 1;  // never: the operands are 0
}

// Seconds of the fastest of a few runs; 0 when the device refuses.
template <class F>
double BestSeconds(const F& run) {
  cudaEvent_t begin = nullptr, end = nullptr;
  if (cudaEventCreate(&begin) != cudaSuccess) return 0;
  if (cudaEventCreate(&end) != cudaSuccess) return 0;
  float best = 0;
  for (int round = 0; round < kRounds; ++round) {
    cudaEventRecord(begin);
    run();
    cudaEventRecord(end);
    float milliseconds = 0;
    if (cudaEventSynchronize(end) != cudaSuccess) break;
    if (cudaEventElapsedTime(&milliseconds, begin, end) != cudaSuccess) break;
    if (best == 0 || milliseconds < best) best = milliseconds;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best / 1e3;
}

}  // namespace

bool HasCodeForThisDevice() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, Read) == cudaSuccess;
}

DeviceRates MeasureDeviceRates() {
  DeviceRates rates;
  int device = 0, multiprocessors = 0;
  size_t free_bytes = 0, total_bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) !=
          cudaSuccess ||
      cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) {
    return rates;
  }
  const size_t bytes = free_bytes / 2 < kMostBytes ? free_bytes / 2 : kMostBytes;
  float4* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) return rates;
  cudaMemset(memory, 0, bytes);
  auto* sink = reinterpret_cast<float*>(memory);
  const auto blocks = static_cast<unsigned>(multiprocessors * kBlocksPerMultiprocessor);
  const LaunchShape shape = {.grid = {blocks, 1, 1}, .threads = kThreads};
  const double read =
      BestSeconds([&] { Launch(Read, shape, memory, bytes / sizeof(float4), sink); });
  const double computed = BestSeconds([&] { Launch(MultiplyAdd, shape, 0.0f, sink); });
  const double halves = BestSeconds([&] { Launch(MultiplyTilesF16, shape, 0u, sink); });
  const double codes = BestSeconds([&] { Launch(MultiplyTilesInt8, shape, 0u, sink); });
  cudaFree(memory);
  if (read > 0) rates.read_bytes_per_second = static_cast<double>(bytes) / read;
  if (computed > 0) {
    rates.operations_per_second = 2.0 * kFmas * kThreads * static_cast<double>(blocks) / computed;
  }
  const double tiles = double{kTiles} * kThreads / 32 * static_cast<double>(blocks);
  if (halves > 0) rates.f16_operations_per_second = tiles * 2 * 16 * 8 * 16 / halves;
  if (codes > 0) rates.int8_operations_per_second = tiles * 2 * 16 * 8 * 32 / codes;
  return rates;
}

}  // namespace sauva::cuda
