#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/time/time.h"
#include "base/event_loop.h"

namespace sauva {

// When each of many state machines wants to be woken, with one timer of the loop for all,
// so that a machine which ends early leaves nothing behind.
// Thread: the loop's.
class WakeList {
 public:
  // `loop` must be stopped before this object goes.
  WakeList(EventLoop& loop, std::function<void(uint64_t id)> on_due)
      : loop_(loop), on_due_(std::move(on_due)) {}

  // Replaces what was set for `id`; InfiniteFuture forgets it. Once due it is forgotten.
  void Set(uint64_t id, absl::Time when);
  void Forget(uint64_t id) { Set(id, absl::InfiniteFuture()); }

 private:
  void Arm();
  void OnTimer();

  EventLoop& loop_;
  const std::function<void(uint64_t)> on_due_;
  std::map<uint64_t, absl::Time> wakes_;
  std::set<std::pair<absl::Time, uint64_t>> order_;
  absl::Time armed_ = absl::InfiniteFuture();  // when the earliest timer of ours fires
};

}  // namespace sauva
