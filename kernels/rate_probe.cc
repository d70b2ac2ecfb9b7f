#include "kernels/rate_probe.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>

#include "base/status_macros.h"
#include "kernels/cpu/select.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kTile = int64_t{1} << 20;
constexpr auto kOperationTime = std::chrono::milliseconds(3);

double SecondsSince(Clock::time_point start) {
  return std::max(1e-9, std::chrono::duration<double>(Clock::now() - start).count());
}

}  // namespace

absl::StatusOr<std::unique_ptr<RateProbe>> RateProbe::Create(const RateProbeOptions& options) {
  ASSIGN_OR_RETURN(const KernelTable* kernels, SelectKernels(options.isa));
  auto probe = std::unique_ptr<RateProbe>(new RateProbe(*kernels, std::max(1, options.threads)));
  probe->tiles_ = std::max<int64_t>(1, options.read_bytes / kTile);
  ASSIGN_OR_RETURN(probe->memory_, HostMemory::Allocate(probe->tiles_ * kTile));
  std::byte* data = probe->memory_.data();
  probe->pool_.Run(probe->tiles_,
                   [&](int64_t tile, int) { std::memset(data + tile * kTile, 1, kTile); });
  return probe;
}

double RateProbe::ReadBytesPerSecond() {
  std::atomic<uint64_t> sink{0};  // keeps the work from being left out
  const std::byte* data = memory_.data();
  const Clock::time_point start = Clock::now();
  pool_.Run(tiles_,
            [&](int64_t tile, int) { sink += kernels_.read_all(data + tile * kTile, kTile); });
  return static_cast<double>(tiles_ * kTile) / SecondsSince(start);
}

double RateProbe::FloatOperationsPerSecond() {
  return OperationsPerSecond(kernels_.multiply_add, 12 * 16 * 2);
}

double RateProbe::Int8OperationsPerSecond() {
  return OperationsPerSecond(kernels_.dot_quads, 12 * 16 * 8);
}

// Every thread works for a set time, so that one which comes late delays nobody.
double RateProbe::OperationsPerSecond(float (*run)(int64_t iterations), double operations_each) {
  constexpr int64_t kIterations = 1000;
  std::atomic<uint64_t> sink{0};
  std::atomic<int64_t> rounds{0};
  const Clock::time_point start = Clock::now();
  pool_.Run(pool_.threads(), [&](int64_t, int) {
    do {
      sink += std::bit_cast<uint32_t>(run(kIterations));
      ++rounds;
    } while (Clock::now() - start < kOperationTime);
  });
  const double iterations = static_cast<double>(rounds.load() * kIterations);
  return iterations * operations_each / SecondsSince(start);
}

}  // namespace sauva
