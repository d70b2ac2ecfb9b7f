#pragma once

#include <functional>

#include "absl/time/time.h"
#include "base/event_loop.h"
#include "worker/worker_session.h"

namespace sauva {

// The one thread that owns a WorkerSession: events come in from any thread, effects go out
// to `sink` on this thread, ticks come when the session asks for them. The session is shown
// a clock that never goes back.
class WorkerLoop {
 public:
  using Sink = std::function<void(WorkerEffect&)>;

  // At most `capacity` offered events wait.
  WorkerLoop(const WorkerOptions& options, Sink sink, size_t capacity = 1 << 14);

  // Takes an event, or returns false when too many wait: its sender is refused.
  // Thread: any.
  [[nodiscard]] bool Offer(WorkerEvent event);

  // Takes an event that cannot be refused (the end of something), behind all offered ones.
  // Thread: any.
  void Deliver(WorkerEvent event);

  // Takes an answer that the session waits for, ahead of what was offered. There are never
  // more of them than the session asked for.
  // Thread: any.
  void Answer(WorkerEvent event);

  // Ends the thread; events are dropped from now on.
  void Stop() { loop_.Stop(); }

  EventLoop& events() { return loop_; }
  // Thread: the loop's own.
  const WorkerSession& session() const { return session_; }

 private:
  void Handle(WorkerEvent event);
  void SetTimer();

  const Sink sink_;
  WorkerSession session_;
  absl::Time next_tick_ = absl::InfiniteFuture();
  EventLoop loop_;  // last: its thread uses what is above
};

}  // namespace sauva
