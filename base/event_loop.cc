#include "base/event_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"

namespace sauva {
namespace {

// The longest sleep; whoever wakes looks at the timers again.
constexpr absl::Duration kLongestSleep = absl::Hours(1);

absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

EventLoop::EventLoop(size_t capacity) : capacity_(capacity), thread_([this] { Run(); }) {}

EventLoop::~EventLoop() { Stop(); }

bool EventLoop::Post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || tasks_.size() >= capacity_) return false;
    tasks_.push(std::move(task));
  }
  wake_.notify_one();
  return true;
}

void EventLoop::PostAt(absl::Time when, Task task) {
  const absl::Time steady_when = SteadyNow() + (when - absl::Now());
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    timers_.push({steady_when, next_order_++, std::move(task)});
  }
  wake_.notify_one();
}

void EventLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_one();
  if (InLoop()) return;
  std::call_once(joined_, [this] { thread_.join(); });
}

void EventLoop::Run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    Task task;
    if (!timers_.empty() && timers_.top().when <= SteadyNow()) {
      task = std::move(timers_.top().task);
      timers_.pop();
    } else if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop();
    } else if (!timers_.empty()) {
      const absl::Duration sleep = std::min(timers_.top().when - SteadyNow(), kLongestSleep);
      wake_.wait_for(lock, absl::ToChronoNanoseconds(sleep));  // by the steady clock
      continue;
    } else {
      wake_.wait(lock);
      continue;
    }
    lock.unlock();
    std::move(task)();
    task = nullptr;  // what it holds is freed outside the lock
    lock.lock();
  }
}

}  // namespace sauva
