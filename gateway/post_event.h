#pragma once

#include <utility>

#include "absl/time/time.h"
#include "base/event_loop.h"

namespace sauva {

// Hands an answer that the loop waits for to it: in order with others from the same thread,
// before new work, and never dropped while the loop runs. Answers are as many as questions
// and the tokens of their streams, which have limits of their own.
// Thread: any.
inline void PostEvent(EventLoop& loop, EventLoop::Task task) {
  loop.PostAt(absl::InfinitePast(), std::move(task));
}

}  // namespace sauva
