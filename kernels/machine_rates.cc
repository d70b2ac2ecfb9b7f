#include "kernels/machine_rates.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels/cpu/select.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/host_memory.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kReadBytes = int64_t{64} << 20;
constexpr auto kReadTime = std::chrono::milliseconds(60);
constexpr auto kOperationTime = std::chrono::milliseconds(30);

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Repeats `work`, which does `amount`, for `time`; the best rate per second. Best, because
// whatever else runs here only takes away.
template <class F>
double BestRate(double amount, Clock::duration time, const F& work) {
  double best = 0;
  const Clock::time_point end = Clock::now() + time;
  do {
    const Clock::time_point start = Clock::now();
    work();
    best = std::max(best, amount / std::max(1e-9, Seconds(Clock::now() - start)));
  } while (Clock::now() < end);
  return best;
}

}  // namespace

MachineRates MeasureMachineRates(int threads) {
  const KernelTable& kernels = **SelectKernels(InstructionSet::kAuto);
  ThreadPool pool(std::max(1, threads));
  std::atomic<uint64_t> sink{0};  // keeps the work from being left out
  MachineRates rates;

  absl::StatusOr<HostMemory> memory = HostMemory::Allocate(kReadBytes);
  if (memory.ok()) {
    std::byte* data = memory->data();
    constexpr int64_t kTile = int64_t{1} << 20;
    pool.Run(kReadBytes / kTile,
             [&](int64_t tile, int) { std::memset(data + tile * kTile, 1, kTile); });
    rates.read_bytes_per_second = BestRate(static_cast<double>(kReadBytes), kReadTime, [&] {
      pool.Run(kReadBytes / kTile,
               [&](int64_t tile, int) { sink += kernels.read_all(data + tile * kTile, kTile); });
    });
  }

  constexpr int64_t kIterations = 20000;
  constexpr double kOperationsEach = 12 * 16 * 2;
  const double operations = kOperationsEach * kIterations * pool.threads();
  rates.operations_per_second = BestRate(operations, kOperationTime, [&] {
    pool.Run(pool.threads(), [&](int64_t, int) {
      sink += static_cast<uint64_t>(kernels.multiply_add(kIterations));
    });
  });
  return rates;
}

}  // namespace sauva
