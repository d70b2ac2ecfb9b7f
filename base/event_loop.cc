#include "base/event_loop.h"

#include <utility>

#include "absl/time/clock.h"

namespace sauva {

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
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    timers_.push({when, next_order_++, std::move(task)});
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
    if (!timers_.empty() && timers_.top().when <= absl::Now()) {
      task = std::move(timers_.top().task);
      timers_.pop();
    } else if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop();
    } else if (!timers_.empty()) {
      wake_.wait_until(lock, absl::ToChronoTime(timers_.top().when));
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
