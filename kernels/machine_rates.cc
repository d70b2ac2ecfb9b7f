#include "kernels/machine_rates.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/cpu/select.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/host_memory.h"
#include "kernels/last_level_cache.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kTile = int64_t{1} << 20;
constexpr int64_t kLeastReadBytes = 64 * kTile;
constexpr int64_t kMostReadBytes = 256 * kTile;
constexpr size_t kLeastRounds = 5;
constexpr auto kReadTime = std::chrono::milliseconds(60);
constexpr auto kOperationTime = std::chrono::milliseconds(30);

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Repeats `work`, which does `amount`, for `time` and kLeastRounds at least; the median rate
// per second.
template <class F>
double MedianRate(double amount, Clock::duration time, const F& work) {
  std::vector<double> rates;
  const Clock::time_point end = Clock::now() + time;
  while (rates.size() < kLeastRounds || Clock::now() < end) {
    const Clock::time_point start = Clock::now();
    work();
    rates.push_back(amount / std::max(1e-9, Seconds(Clock::now() - start)));
  }
  const auto middle = rates.begin() + static_cast<long>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

// Whole tiles, so much that a cache holds little of it, within what may be taken.
int64_t ReadBytes(uint64_t memory_bytes) {
  const int64_t wanted = std::clamp(4 * LastLevelCacheBytes(), kLeastReadBytes, kMostReadBytes);
  const uint64_t allowed = memory_bytes / 4;
  if (allowed >= static_cast<uint64_t>(wanted)) return wanted;
  return std::max(kTile, static_cast<int64_t>(allowed) / kTile * kTile);
}

}  // namespace

MachineRates MeasureMachineRates(int threads, uint64_t memory_bytes) {
  const KernelTable& kernels = **SelectKernels(InstructionSet::kAuto);
  ThreadPool pool(std::max(1, threads));
  std::atomic<uint64_t> sink{0};  // keeps the work from being left out
  MachineRates rates;

  const int64_t bytes = ReadBytes(memory_bytes);
  absl::StatusOr<HostMemory> memory = HostMemory::Allocate(bytes);
  if (memory.ok()) {
    std::byte* data = memory->data();
    pool.Run(bytes / kTile, [&](int64_t tile, int) { std::memset(data + tile * kTile, 1, kTile); });
    rates.read_bytes_per_second = MedianRate(static_cast<double>(bytes), kReadTime, [&] {
      pool.Run(bytes / kTile,
               [&](int64_t tile, int) { sink += kernels.read_all(data + tile * kTile, kTile); });
    });
  }

  constexpr int64_t kIterations = 20000;
  constexpr double kOperationsEach = 12 * 16 * 2;
  const double operations = kOperationsEach * kIterations * pool.threads();
  rates.operations_per_second = MedianRate(operations, kOperationTime, [&] {
    pool.Run(pool.threads(), [&](int64_t, int) {
      sink += static_cast<uint64_t>(kernels.multiply_add(kIterations));
    });
  });
  return rates;
}

}  // namespace sauva
