#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/half.h"
#include "tests/cuda/emulator/emulator.h"

// The words the kernels of kernels/cuda are written in, as the emulator of the tests
// understands them; kernels/cuda/target/simt_target.h has their contracts.
#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) ushort4 {
  uint16_t x, y, z, w;
};
struct alignas(4) char4 {
  int8_t x, y, z, w;
};

using sauva::emulator::blockDim;
using sauva::emulator::blockIdx;
using sauva::emulator::gridDim;
using sauva::emulator::threadIdx;

namespace sauva::cuda {

struct LaunchShape {
  emulator::Dimensions grid;
  int threads = 0;
  int shared_bytes = 0;
  void* stream = nullptr;
};

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments... arguments) {
  auto* stream = static_cast<emulator::Stream*>(shape.stream);
  if (stream != nullptr && stream->records) {
    stream->recorded.push_back([kernel, shape, arguments...] {
      emulator::RunGrid(shape.grid, shape.threads, shape.shared_bytes,
                        [&] { kernel(arguments...); });
    });
    return;
  }
  emulator::RunGrid(shape.grid, shape.threads, shape.shared_bytes, [&] { kernel(arguments...); });
}

inline unsigned char* DynamicShared() { return emulator::SharedMemory(); }
inline void SyncThreads() { emulator::SyncThreads(); }

template <class T>
T ShuffleXor(T value, int mask) {
  const auto values = emulator::ExchangeInWarp(value);
  return values[emulator::Lane() ^ mask];
}
template <class T>
T ShuffleDown(T value, int delta) {
  const auto values = emulator::ExchangeInWarp(value);
  const int lane = emulator::Lane() + delta;
  return lane < emulator::kWarp ? values[lane] : value;
}

inline uint32_t Ballot(bool value) {
  const auto values = emulator::ExchangeInWarp(value);
  uint32_t bits = 0;
  for (int lane = 0; lane < emulator::kWarp; ++lane) bits |= uint32_t{values[lane]} << lane;
  return bits;
}
inline int CountBits(uint32_t bits) { return std::popcount(bits); }
inline uint32_t ChooseBytes(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t chosen = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t index = selector >> (4 * i) & 7u;
    chosen |= static_cast<uint32_t>(bytes >> (8 * index) & 0xffu) << (8 * i);
  }
  return chosen;
}

inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline uint32_t BitsOf(float x) { return std::bit_cast<uint32_t>(x); }
inline float FloatOf(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float SquareRoot(float x) { return std::sqrt(x); }
inline float WidenHalf(uint16_t half) { return HalfToFloat(half); }
inline uint16_t NarrowToHalf(float x) { return FloatToHalf(x); }

template <class T>
T LoadOnce(const T* from) {
  return *from;
}

void MultiplyInt8(const uint32_t (&a)[4], const uint32_t (&b)[2], int32_t (&accumulator)[4]);
void MultiplyF16(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&accumulator)[4]);
void MultiplyBF16(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&accumulator)[4]);

inline void CopyAsync(void* shared, const void* from) { emulator::BeginCopy(shared, from); }
inline void CommitCopies() { emulator::CommitCopies(); }
template <int kLeft>
void WaitForCopies() {
  emulator::WaitForCopies(kLeft);
}

}  // namespace sauva::cuda
