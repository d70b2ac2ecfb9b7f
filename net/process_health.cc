#include "net/process_health.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status_macros.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<ProcessHealth>> ProcessHealth::Start(const std::string& address,
                                                                    absl::Duration patience) {
  auto health = std::unique_ptr<ProcessHealth>(new ProcessHealth(patience));
  if (address.empty()) return health;
  ASSIGN_OR_RETURN(health->server_,
                   RpcServer::Start({.address = address,
                                     .tls = {.insecure = true},
                                     .client_certificate = ClientCertificate::kNone},
                                    {}));
  health->Set(kStartupHealth, false);
  health->Set(kLivenessHealth, true);
  health->SetReady(false);
  health->watcher_ = std::thread([raw = health.get()] { raw->Run(); });
  return health;
}

ProcessHealth::~ProcessHealth() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  wake_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void ProcessHealth::Set(const char* name, bool serving) {
  if (server_ == nullptr) return;
  server_->SetHealth(name, serving ? RpcServer::Health::kServing : RpcServer::Health::kNotServing);
}

void ProcessHealth::SetStarted() { Set(kStartupHealth, true); }

void ProcessHealth::SetReady(bool ready) {
  Set(kReadinessHealth, ready);
  Set("", ready);
}

void ProcessHealth::Watch(Post post) {
  if (server_ == nullptr) return;  // nobody asks
  const std::lock_guard lock(mutex_);
  watched_.push_back({std::move(post), std::make_shared<std::atomic<Clock::rep>>(
                                           Clock::now().time_since_epoch().count())});
}

void ProcessHealth::Unwatch() {
  const std::lock_guard lock(mutex_);
  watched_.clear();
}

// Asks four times within the patience, so that one late answer is no verdict.
void ProcessHealth::Run() {
  const auto patience = absl::ToChronoNanoseconds(patience_);
  bool alive = true;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, patience / 4, [this] { return ended_; })) {
    const Clock::time_point now = Clock::now();
    const bool all_turn = std::ranges::all_of(watched_, [&](const Watched& watched) {
      return now - Clock::time_point(Clock::duration(*watched.last_turn)) < patience;
    });
    for (const Watched& watched : watched_) {
      watched.post([turn = watched.last_turn] { *turn = Clock::now().time_since_epoch().count(); });
    }
    if (std::exchange(alive, all_turn) == all_turn) continue;
    Set(kLivenessHealth, all_turn);
    if (all_turn) {
      LogInfo("alive again");
    } else {
      LogError("a loop does not turn", {{"for", absl::FormatDuration(patience_)}});
    }
  }
}

}  // namespace sauva
