#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <vector>

#include "absl/functional/function_ref.h"

// Runs CUDA kernels on the host: the blocks of a grid one after another, the threads of a
// block as fibers that change at barriers and at exchanges in a warp. What would be
// undefined on a device ends the program with a message: a barrier that some threads of the
// block never reach, an exchange that some lanes of the warp never reach. The order in
// which the threads of a block run differs from block to block, so that what needs a barrier
// and has none shows. Shared memory has exactly the bytes asked for and is NaN before each
// block, for address sanitizers and for reads of what nobody wrote.
// Thread: one at a time.
namespace sauva::emulator {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;       // of a block
constexpr int kMaxSharedBytes = 49152;  // of a block, without opting in to more
constexpr int kMaxExchange = 48;        // bytes per lane
constexpr int kCopyBytes = 16;          // of an asynchronous copy

struct Dimensions {
  unsigned x = 1, y = 1, z = 1;
};

// Of the thread that runs.
extern Dimensions threadIdx, blockIdx, blockDim, gridDim;

void RunGrid(const Dimensions& grid, int threads, int shared_bytes,
             absl::FunctionRef<void()> kernel);

// What LaunchShape::stream points to; null launches at once, too. While it records, what is
// queued is kept with the arguments it had, instead of being run.
struct Stream {
  bool records = false;
  std::vector<std::function<void()>> recorded;
};

// For the kernel that runs.
unsigned char* SharedMemory();
void SyncThreads();
inline int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

// Gives `value` to the warp; returns the values of its 32 lanes, kMaxExchange bytes apart,
// valid until the lane's next exchange but one.
const std::byte* Exchange(const void* value, size_t size);

// The values that the lanes of a warp gave.
template <class T>
class LaneValues {
 public:
  explicit LaneValues(const std::byte* base) : base_(base) {}
  const T& operator[](int lane) const {
    return *reinterpret_cast<const T*>(base_ + lane * kMaxExchange);
  }

 private:
  const std::byte* base_;
};

template <class T>
LaneValues<T> ExchangeInWarp(const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMaxExchange);
  return LaneValues<T>(Exchange(&value, sizeof value));
}

// A copy of kCopyBytes to shared memory that is done when its thread waits for it and not
// before; until then the bytes are NaN. A block ends with all copies waited for.
void BeginCopy(void* to, const void* from);
void CommitCopies();
void WaitForCopies(int groups_left);

// Kernels run so far, for tests that count launches.
int64_t NumLaunches();

}  // namespace sauva::emulator
