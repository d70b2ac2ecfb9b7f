#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/failed_launch.h"

// The words the kernels of kernels/cuda are written in, as the CUDA compiler has them. The
// tests have a header of the same name with the same words on the host
// (tests/cuda/emulator): the build chooses by include path.
namespace sauva::cuda {

struct LaunchShape {
  dim3 grid;
  int threads = 0;  // per block: a multiple of 32
  int shared_bytes = 0;
  void* stream = nullptr;
};

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments... arguments) {
  kernel<<<shape.grid, static_cast<unsigned>(shape.threads),
           static_cast<size_t>(shape.shared_bytes), static_cast<cudaStream_t>(shape.stream)>>>(
      arguments...);
  if (cudaPeekAtLastError() == cudaSuccess) return;
  LogFailedLaunch(reinterpret_cast<const void*>(kernel),
                  int64_t{shape.grid.x} * shape.grid.y * shape.grid.z, shape.threads,
                  shape.shared_bytes);
}

// The block's dynamic shared memory, aligned to 16 bytes.
__device__ __forceinline__ unsigned char* DynamicShared() {
  extern __shared__ __align__(16) unsigned char shared[];
  return shared;
}

__device__ __forceinline__ void SyncThreads() { __syncthreads(); }

// The value of the lane whose number differs in the bits of `mask`, or of the lane `delta`
// higher. Every lane of the warp takes part.
template <class T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
__device__ __forceinline__ T ShuffleDown(T value, int delta) {
  return __shfl_down_sync(0xffffffffu, value, static_cast<unsigned>(delta));
}

// Of each lane, its bit of `value`.
__device__ __forceinline__ uint32_t Ballot(bool value) { return __ballot_sync(0xffffffffu, value); }
__device__ __forceinline__ int CountBits(uint32_t bits) { return __popc(bits); }

// Four bytes of the eight of low and high, chosen by the four nibbles of `selector` (0..7).
__device__ __forceinline__ uint32_t ChooseBytes(uint32_t low, uint32_t high, uint32_t selector) {
  return __byte_perm(low, high, selector);
}

// One rounding.
__device__ __forceinline__ float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

__device__ __forceinline__ uint32_t BitsOf(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float FloatOf(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ float SquareRoot(float x) { return __fsqrt_rn(x); }

// f16 as its bits.
__device__ __forceinline__ float WidenHalf(uint16_t half) {
  return __half2float(__ushort_as_half(half));
}
__device__ __forceinline__ uint16_t NarrowToHalf(float x) {
  return __half_as_ushort(__float2half_rn(x));
}

// Reads what is read once: it leaves the caches to what is read again.
template <class T>
__device__ __forceinline__ T LoadOnce(const T* from) {
  return __ldcs(from);
}

// Matrix instructions are volatile: the whole warp reaches them where they are written.

// accumulator [16, 8] += a [16, 32] b [32, 8] of int8, by the whole warp. Registers of lane
// l, with row = l / 4 and four = l % 4, four codes to a register, lowest k lowest:
//   a[0] rows `row`, k 4 four + i;      a[1] row + 8, the same k;
//   a[2] rows `row`, k 16 + 4 four + i; a[3] row + 8;
//   b[0] column `row`, k 4 four + i;    b[1] k 16 + 4 four + i;
//   accumulator[0, 1] row `row`, columns 2 four + {0, 1}; [2, 3] row + 8.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k32" and "mma.m8n8k16".
__device__ __forceinline__ void MultiplyInt8(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                             int32_t (&accumulator)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(accumulator[0]), "+r"(accumulator[1]), "+r"(accumulator[2]), "+r"(accumulator[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half) {
    for (int step = 0; step < 2; ++step) {
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                   : "+r"(accumulator[2 * half]), "+r"(accumulator[2 * half + 1])
                   : "r"(a[half + 2 * step]), "r"(b[step]));
    }
  }
#endif
}

// accumulator [16, 8] += a [16, 16] b [16, 8] of f16 or bf16, by the whole warp, from compute
// capability 8.0 on; f16 also on 7.5. Registers of lane l, with row = l / 4 and four = l % 4,
// two elements to a register, the lower k lower:
//   a[0] rows `row`, k 2 four + {0, 1}; a[1] row + 8, the same k;
//   a[2] rows `row`, k 8 + 2 four + {0, 1}; a[3] row + 8;
//   b[0] column `row`, k 2 four + {0, 1}; b[1] k 8 + 2 four + {0, 1};
//   accumulator[0, 1] row `row`, columns 2 four + {0, 1}; [2, 3] row + 8.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k8".
__device__ __forceinline__ void MultiplyF16(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                            float (&accumulator)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  }
#endif
}
__device__ __forceinline__ void MultiplyBF16([[maybe_unused]] const uint32_t (&a)[4],
                                             [[maybe_unused]] const uint32_t (&b)[2],
                                             [[maybe_unused]] float (&accumulator)[4]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // nobody launches it there
#endif
}

// Copies 16 bytes from device to shared memory while the thread goes on, from compute
// capability 8.0 on; both are aligned to 16 bytes. A thread's copies since its last
// CommitCopies are a group; WaitForCopies returns when all groups of the thread but its latest
// kLeft are there, for other threads after a barrier.
__device__ __forceinline__ void CopyAsync([[maybe_unused]] void* shared,
                                          [[maybe_unused]] const void* from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(from)
               : "memory");
#else
  __trap();  // nobody launches it there
#endif
}
__device__ __forceinline__ void CommitCopies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kLeft>
__device__ __forceinline__ void WaitForCopies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

}  // namespace sauva::cuda
