#include "kernels/cpu/thread_pool.h"

#include <chrono>

#include "base/check.h"
#include "kernels/factory.h"

namespace sauva {
namespace {

constexpr uint64_t kInside = 0x7fff;
constexpr uint64_t kOpen = 0x8000;
constexpr uint64_t kJobStep = 0x10000;
constexpr int kMaxThreads = 1024;
// Longer than the gap between two ops, and about what waking costs.
constexpr auto kSpinTime = std::chrono::microseconds(50);

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Looks until `found()` or the time is up; tells whether it found.
template <class F>
bool SpinUntil(std::chrono::microseconds time, const F& found) {
  constexpr int kLooks = 16;  // for one at the clock
  if (found()) return true;
  if (time.count() == 0) return false;
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (found()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : spin_time_(threads <= UsableCores() ? kSpinTime : kSpinTime.zero()) {
  Check(threads >= 1 && threads <= kMaxThreads, "a pool has 1 to 1024 threads");
  helpers_.reserve(static_cast<size_t>(threads) - 1);
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this, i] { HelperMain(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::RunJob(const Job& job) {
  if (job.tiles <= 1 || helpers_.empty()) {
    for (int64_t tile = 0; tile < job.tiles; ++tile) job.call(job.context, tile, 0);
    return;
  }
  job_ = job;
  next_tile_.store(0, std::memory_order_relaxed);
  const uint64_t opened = (state_.load(std::memory_order_relaxed) + kJobStep) | kOpen;
  state_.store(opened);
  if (sleepers_.load() > 0) {
    // The lock orders this after a helper's last look before it sleeps.
    { const std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  RunTiles(0);
  // No tile is left: who has not come yet need not come, so only those inside are awaited.
  state_.fetch_and(~kOpen);
  const auto nobody_inside = [this] {
    return (state_.load(std::memory_order_acquire) & kInside) == 0;
  };
  if (SpinUntil(spin_time_, nobody_inside)) return;
  std::unique_lock lock(mutex_);
  empty_.wait(lock, nobody_inside);
}

uint64_t ThreadPool::AwaitJob(uint64_t seen) {
  const auto is_new = [&](uint64_t state) {
    return (state & kOpen) != 0 && state / kJobStep != seen / kJobStep;
  };
  uint64_t state = 0;
  if (SpinUntil(spin_time_, [&] {
        state = state_.load(std::memory_order_acquire);
        return is_new(state) || stopping_;
      })) {
    return state;
  }
  std::unique_lock lock(mutex_);
  ++sleepers_;
  wake_.wait(lock, [&] {
    state = state_.load();
    return is_new(state) || stopping_;
  });
  --sleepers_;
  return state;
}

void ThreadPool::HelperMain(int thread) {
  uint64_t seen = 0;
  while (true) {
    uint64_t state = AwaitJob(seen);
    if (stopping_) return;
    bool entered = false;
    while ((state & kOpen) != 0 && !entered) {
      entered = state_.compare_exchange_weak(state, state + 1);
    }
    if (!entered) continue;
    seen = state;
    RunTiles(thread);
    const uint64_t before = state_.fetch_sub(1);
    // The caller may be asleep only when the job is closed.
    if ((before & kInside) == 1 && (before & kOpen) == 0) {
      { const std::lock_guard lock(mutex_); }
      empty_.notify_one();
    }
  }
}

void ThreadPool::RunTiles(int thread) {
  while (true) {
    const int64_t tile = next_tile_.fetch_add(1, std::memory_order_relaxed);
    if (tile >= job_.tiles) return;
    job_.call(job_.context, tile, thread);
  }
}

}  // namespace sauva
