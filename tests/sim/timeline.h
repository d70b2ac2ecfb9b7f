#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace sauva::sim {

// Numbers that depend on the seed alone, on every machine. Source: splitmix64, Vigna.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [low, high].
  int Int(int low, int high) {
    return low + static_cast<int>(Next() % static_cast<uint64_t>(high - low + 1));
  }
  bool Chance(int percent) { return Int(1, 100) <= percent; }
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    return low + (high - low) * (static_cast<double>(Next() >> 11) * 0x1p-53);
  }

 private:
  uint64_t state_;
};

// What happens when. Things due at the same moment happen in the order they were planned.
class Timeline {
 public:
  absl::Time now() const { return now_; }

  void At(absl::Time when, std::function<void()> what) {
    queue_.push({std::max(when, now_), next_order_++, std::move(what)});
  }
  void After(absl::Duration delay, std::function<void()> what) {
    At(now_ + delay, std::move(what));
  }

  // Does the next thing; false when nothing is planned.
  bool Step() {
    if (queue_.empty()) return false;
    now_ = queue_.top().when;
    const std::function<void()> what = std::move(queue_.top().what);
    queue_.pop();
    ++num_steps_;
    what();
    return true;
  }
  uint64_t num_steps() const { return num_steps_; }

 private:
  struct Planned {
    absl::Time when;
    uint64_t order;
    mutable std::function<void()> what;  // priority_queue hands out const values only
    bool operator<(const Planned& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };
  std::priority_queue<Planned> queue_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(24 * 365);
  uint64_t next_order_ = 0;
  uint64_t num_steps_ = 0;
};

}  // namespace sauva::sim
