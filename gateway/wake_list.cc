#include "gateway/wake_list.h"

#include <vector>

#include "absl/time/clock.h"

namespace sauva {

void WakeList::Set(uint64_t id, absl::Time when) {
  const auto known = wakes_.find(id);
  if (known != wakes_.end()) {
    if (known->second == when) return;
    order_.erase({known->second, id});
    wakes_.erase(known);
  }
  if (when == absl::InfiniteFuture()) return;
  wakes_[id] = when;
  order_.insert({when, id});
  Arm();
}

void WakeList::Arm() {
  if (order_.empty() || order_.begin()->first >= armed_) return;
  armed_ = order_.begin()->first;
  loop_.PostAt(armed_, [this] { OnTimer(); });
}

void WakeList::OnTimer() {
  armed_ = absl::InfiniteFuture();
  const absl::Time now = absl::Now();
  std::vector<uint64_t> due;
  for (const auto& [when, id] : order_) {
    if (when > now) break;
    due.push_back(id);
  }
  for (const uint64_t id : due) {
    Forget(id);
    on_due_(id);
  }
  Arm();
}

}  // namespace sauva
