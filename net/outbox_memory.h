#pragma once

#include <cstddef>
#include <functional>
#include <mutex>

namespace sauva {

// The memory that messages of many streams may take while they wait for slow readers.
// An outbox may grow as long as it holds no more than is left free. So one slow reader
// gets at most half of the whole, a hundred leave a hundredth free, and a reader that only
// pauses finds room whatever the others do.
// Source: Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998 (alpha = 1).
// Thread: any.
class OutboxMemory {
 public:
  // on_change: told by how much the used bytes change; from any thread.
  explicit OutboxMemory(size_t limit_bytes, std::function<void(double)> on_change = {})
      : limit_bytes_(limit_bytes), on_change_(std::move(on_change)) {}

  // Takes `bytes` more for an outbox that holds `held` of them already; false when it may
  // not grow so far. The first message of an outbox always finds room.
  bool Take(size_t bytes, size_t held) {
    {
      const std::lock_guard lock(mutex_);
      const size_t free_bytes = used_bytes_ < limit_bytes_ ? limit_bytes_ - used_bytes_ : 0;
      if (held > 0 && held + bytes > free_bytes) return false;
      used_bytes_ += bytes;
    }
    if (on_change_) on_change_(static_cast<double>(bytes));
    return true;
  }

  void Return(size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      used_bytes_ -= bytes;
    }
    if (on_change_) on_change_(-static_cast<double>(bytes));
  }

  size_t used_bytes() const {
    const std::lock_guard lock(mutex_);
    return used_bytes_;
  }

 private:
  const size_t limit_bytes_;
  const std::function<void(double)> on_change_;
  mutable std::mutex mutex_;
  size_t used_bytes_ = 0;
};

}  // namespace sauva
