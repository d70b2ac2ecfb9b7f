#include "worker/worker_loop.h"

#include <chrono>
#include <memory>
#include <utility>

#include "absl/time/clock.h"

namespace sauva {
namespace {

constexpr absl::Duration kRetryWhenFull = absl::Milliseconds(5);

// Calendar time may be set back; this cannot.
absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

WorkerLoop::WorkerLoop(const WorkerOptions& options, Sink sink, size_t capacity)
    : sink_(std::move(sink)), session_(options), loop_(capacity) {}

bool WorkerLoop::Offer(WorkerEvent event) {
  return loop_.Post([this, event = std::move(event)]() mutable { Handle(std::move(event)); });
}

void WorkerLoop::Deliver(WorkerEvent event) {
  // Shared: by the attempt to queue it, which drops its task when the queue is full, and
  // the later attempt.
  auto held = std::make_shared<WorkerEvent>(std::move(event));
  if (loop_.Post([this, held] { Handle(std::move(*held)); })) return;
  loop_.PostAt(absl::Now() + kRetryWhenFull, [this, held] { Deliver(std::move(*held)); });
}

void WorkerLoop::Answer(WorkerEvent event) {
  loop_.PostAt(absl::InfinitePast(),
               [this, event = std::move(event)]() mutable { Handle(std::move(event)); });
}

void WorkerLoop::Handle(WorkerEvent event) {
  for (WorkerEffect& effect : session_.OnEvent(std::move(event), SteadyNow())) sink_(effect);
  SetTimer();
}

void WorkerLoop::SetTimer() {
  const absl::Time deadline = session_.NextDeadline();
  if (deadline >= next_tick_) return;  // the timer already set looks again
  next_tick_ = deadline;
  loop_.PostAt(absl::Now() + (deadline - SteadyNow()), [this, deadline] {
    if (next_tick_ != deadline) return;  // an earlier one was set meanwhile
    next_tick_ = absl::InfiniteFuture();
    Handle(WorkerTick{});
  });
}

}  // namespace sauva
