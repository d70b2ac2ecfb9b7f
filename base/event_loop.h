#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace sauva {

// One thread that runs tasks in order: the owner of a state machine. Other threads Post
// values to it; nothing of the machine is touched from outside.
class EventLoop {
 public:
  using Task = absl::AnyInvocable<void()>;

  // Starts the thread. At most `capacity` tasks wait at a time.
  explicit EventLoop(size_t capacity = 1 << 16);
  // Stops and joins.
  ~EventLoop();

  // Runs `task` on the loop's thread. Returns false, and drops the task, when the loop has
  // stopped or its queue is full: the caller refuses its work then.
  // Thread: any.
  bool Post(Task task);

  // Runs `task` when as much time has passed as now lies before `when`, or soon after; before
  // every waiting task when that is none. The wait is kept on a clock that nobody sets, so
  // that a step of the calendar neither cuts it short nor draws it out: whoever needs a
  // moment of the calendar looks again and asks anew. Timers do not count against the
  // capacity: a machine sets a bounded number of them. Thread: any.
  void PostAt(absl::Time when, Task task);

  // Ends the thread after the task now running; later tasks are dropped. Waits for the
  // end unless called on the loop's own thread. Idempotent.
  void Stop();

  bool InLoop() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  struct Timer {
    absl::Time when;  // of the steady clock
    uint64_t order;
    mutable Task task;  // priority_queue hands out const values only
    bool operator<(const Timer& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };
  void Run();

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::queue<Task> tasks_;
  std::priority_queue<Timer> timers_;
  uint64_t next_order_ = 0;
  bool stopped_ = false;
  std::once_flag joined_;
  std::thread thread_;
};

}  // namespace sauva
