#include "worker/loose_threads.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace sauva {

LooseThreads::~LooseThreads() {
  std::unique_lock lock(count_->mutex);
  if (count_->ended.wait_for(lock, absl::ToChronoNanoseconds(kFarewell),
                             [this] { return count_->running == 0; })) {
    return;
  }
  LogWarning("threads are left behind in calls that do not return", {{"count", count_->running}});
}

absl::Status LooseThreads::Start(std::function<void()> work) const {
  {
    const std::lock_guard lock(count_->mutex);
    if (count_->running >= limit_) {
      return absl::ResourceExhaustedError(absl::StrCat(
          count_->running, " threads of earlier ones still run, the limit is ", limit_));
    }
    ++count_->running;
  }
  std::thread([count = count_, work = std::move(work)]() mutable {
    work();
    work = nullptr;
    const std::lock_guard lock(count->mutex);
    --count->running;
    count->ended.notify_all();
  }).detach();
  return absl::OkStatus();
}

int LooseThreads::running() const {
  const std::lock_guard lock(count_->mutex);
  return count_->running;
}

}  // namespace sauva
