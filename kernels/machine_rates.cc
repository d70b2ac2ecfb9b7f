#include "kernels/machine_rates.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/last_level_cache.h"
#include "kernels/rate_probe.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kTile = int64_t{1} << 20;
constexpr int64_t kLeastReadBytes = 64 * kTile;
constexpr int64_t kMostReadBytes = 256 * kTile;
constexpr size_t kLeastRounds = 5;
constexpr auto kReadTime = std::chrono::milliseconds(60);
constexpr auto kOperationTime = std::chrono::milliseconds(30);

// Repeats `measure` for `time` and kLeastRounds at least; the median.
template <class F>
double Median(Clock::duration time, const F& measure) {
  std::vector<double> rates;
  const Clock::time_point end = Clock::now() + time;
  while (rates.size() < kLeastRounds || Clock::now() < end) rates.push_back(measure());
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
  MachineRates rates;
  const auto probe = RateProbe::Create({.threads = threads, .read_bytes = ReadBytes(memory_bytes)});
  if (!probe.ok()) return rates;
  rates.read_bytes_per_second = Median(kReadTime, [&] { return (*probe)->ReadBytesPerSecond(); });
  rates.operations_per_second =
      Median(kOperationTime, [&] { return (*probe)->FloatOperationsPerSecond(); });
  return rates;
}

}  // namespace sauva
