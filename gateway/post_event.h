#pragma once

#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "base/event_loop.h"

namespace sauva {

// The loop that owns a gateway's state.
// Shared: by the gateway and by each call under way, whose answer may come when the gateway
// has gone; the loop has been stopped by then and drops it.
using OwnerLoop = std::shared_ptr<EventLoop>;

// Hands an answer that the loop waits for to it: in order with others from the same thread,
// before new work, and never dropped while the loop runs. Answers are as many as questions
// and the tokens of their streams, which have limits of their own.
// Thread: any.
inline void PostEvent(const OwnerLoop& loop, EventLoop::Task task) {
  loop->PostAt(absl::InfinitePast(), std::move(task));
}

}  // namespace sauva
