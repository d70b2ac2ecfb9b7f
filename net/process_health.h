#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/server.h"

namespace sauva {

// Service names of grpc.health.v1 on a process's health port.
inline constexpr const char* kStartupHealth = "startup";    // it has begun to listen
inline constexpr const char* kLivenessHealth = "liveness";  // its loops still turn
inline constexpr const char* kReadinessHealth =
    "readiness";  // it does its part of the work; also ""

// What an orchestrator asks of a process: three questions with three answers, on a port of
// its own. That port is plaintext whatever the others are (the probes of Kubernetes speak no
// TLS) and has nothing but grpc.health.v1 and reflection.
//
// A process that loads, waits for the coordinator or has lost it is alive: only loops that
// do not turn for the patience make it dead, and a new start mends that.
// Thread: any.
class ProcessHealth {
 public:
  // Serves at once when `address` is not empty: alive, neither started nor ready.
  // Errors: UNAVAILABLE naming the address.
  static absl::StatusOr<std::unique_ptr<ProcessHealth>> Start(
      const std::string& address, absl::Duration patience = absl::Seconds(15));
  ~ProcessHealth();

  // host:port really taken; empty when not served.
  std::string address() const { return server_ ? server_->address() : std::string(); }

  void SetStarted();
  void SetReady(bool ready);

  // Asks a loop again and again to run a task: `post` returns false when it cannot now.
  // The loop must live until Unwatch.
  using Post = std::function<bool(std::function<void()>)>;
  void Watch(Post post);
  void Unwatch();

 private:
  using Clock = std::chrono::steady_clock;
  struct Watched {
    Post post;
    // Shared: by this entry and the task that waits in the loop.
    std::shared_ptr<std::atomic<Clock::rep>> last_turn;
  };
  explicit ProcessHealth(absl::Duration patience) : patience_(patience) {}
  void Run();
  void Set(const char* name, bool serving);

  const absl::Duration patience_;
  std::unique_ptr<RpcServer> server_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Watched> watched_;
  bool ended_ = false;
  std::thread watcher_;
};

}  // namespace sauva
