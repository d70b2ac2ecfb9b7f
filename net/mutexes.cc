#include "net/mutexes.h"

#include <mutex>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace sauva {
namespace {

// On a lock that one thread waits for already.
void QueueBehindAnother() {
  struct {
    absl::Mutex mutex;
    bool waits = false;
    bool ends = false;
  } shared;
  const auto first_waits = [&shared] {
    shared.waits = true;
    return shared.ends;
  };
  std::thread first([&] {
    shared.mutex.LockWhen(absl::Condition(&first_waits));
    shared.mutex.Unlock();
  });
  // It lets go of the lock as it queues, so that whoever finds `waits` finds it in the queue.
  for (bool waits = false; !waits; std::this_thread::yield()) {
    const absl::MutexLock lock(&shared.mutex);
    waits = shared.waits;
  }
  const auto never = [] { return false; };
  shared.mutex.LockWhenWithTimeout(absl::Condition(&never), absl::Microseconds(1));
  shared.ends = true;
  shared.mutex.Unlock();
  first.join();
}

}  // namespace

void PrepareMutexes() {
  static std::once_flag once;
  std::call_once(once, [] {
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    QueueBehindAnother();
  });
}

}  // namespace sauva
