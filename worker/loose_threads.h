#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sauva {

// Threads that nobody waits for, since a call into a library may hold them up for ever. Each
// owns what it uses; so one that hangs costs itself and what it holds, no more than `limit` of
// them, and no lock or loop waits for it.
// Thread: safe from any thread.
class LooseThreads {
 public:
  explicit LooseThreads(int limit) : limit_(limit), count_(std::make_shared<Count>()) {}
  // Waits for those that run, no longer than `kFarewell`: one that hangs is left behind.
  ~LooseThreads();
  LooseThreads(const LooseThreads&) = delete;
  LooseThreads& operator=(const LooseThreads&) = delete;

  static constexpr absl::Duration kFarewell = absl::Seconds(5);

  // Runs `work` on a thread of its own, which destroys it there, too.
  // Errors: RESOURCE_EXHAUSTED with the limit while as many run as may.
  absl::Status Start(std::function<void()> work) const;

  int running() const;

 private:
  // Shared: by this object and the threads, which may outlive it.
  struct Count {
    std::mutex mutex;
    std::condition_variable ended;
    int running = 0;  // guarded by mutex
  };

  const int limit_;
  const std::shared_ptr<Count> count_;
};

}  // namespace sauva
