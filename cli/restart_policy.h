#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace sauva {

// When a dead child is started again: after 0.5 s at first, twice as long each time up to
// 30 s, and from the beginning once a child has lived for a minute.
class RestartPolicy {
 public:
  static constexpr absl::Duration kFirstDelay = absl::Milliseconds(500);
  static constexpr absl::Duration kLongestDelay = absl::Seconds(30);
  static constexpr absl::Duration kStableAfter = absl::Minutes(1);

  // How long to wait before the next start of a child that lived for `lifetime`.
  absl::Duration NextDelay(absl::Duration lifetime) {
    if (lifetime >= kStableAfter) next_ = kFirstDelay;
    const absl::Duration delay = next_;
    next_ = std::min(next_ * 2, kLongestDelay);
    return delay;
  }

 private:
  absl::Duration next_ = kFirstDelay;
};

}  // namespace sauva
