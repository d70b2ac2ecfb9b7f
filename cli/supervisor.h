#pragma once

#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "cli/child_process.h"
#include "cli/restart_policy.h"

namespace sauva {

// What a supervised service must keep from one life to the next.
enum class RestartAddress {
  kAny,   // a worker joins again from wherever it is
  kSame,  // others know the coordinator and the gateways by address
};

// A service to keep alive. The supervisor adds `--listen` and `--metrics`.
struct ServiceCommand {
  ChildCommand command;
  std::string listen;
  std::string metrics;
  RestartAddress restart_address = RestartAddress::kAny;
};

// Something that happened to a child after the start.
struct ChildEvent {
  enum class Kind { kDied, kRestarted } kind = Kind::kDied;
  std::string role;
  std::string name;
  pid_t pid = 0;
  std::string detail;      // how it died and what follows
  Announcement listening;  // of a child that started again
};

struct SupervisorOptions {
  bool restart = true;
  std::string log_directory;  // each child's log goes to NAME.log in it; empty: kept nowhere
  std::function<void(const ChildEvent&)> on_event;
};

// Starts services, reads their logs, starts dead ones again and ends them in order.
// Ends when SIGINT or SIGTERM arrives, which it takes from the process while it lives.
// Thread: the main thread.
class Supervisor {
 public:
  explicit Supervisor(SupervisorOptions options);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Starts a service and returns its index. Errors: as ChildProcess::Start.
  absl::StatusOr<size_t> Start(ServiceCommand service);

  // Waits until all services of this role have announced where they listen.
  // Errors: UNAVAILABLE with its last log lines when a child dies first; DEADLINE_EXCEEDED;
  // CANCELLED on a signal.
  absl::Status AwaitListening(const std::string& role, absl::Duration timeout);

  // The cluster is up: from now on deaths are told to `on_event` and dead children start
  // again. Before, a death only shows in FirstDead.
  void EnterService() { in_service_ = true; }

  // Serves until `done` returns true, asking about five times a second.
  // Errors: CANCELLED on a signal; ABORTED when no child runs and none will be restarted.
  absl::Status RunUntil(const std::function<bool()>& done);

  // Sends SIGTERM to a role's children and waits for their end; those that still run after
  // `grace`, or when a second signal arrives, are killed.
  void Stop(const std::string& role, absl::Duration grace);

  // A child that died and will not come back, told with its last log lines; nothing when
  // all run. For failing the start of a cluster.
  std::optional<std::string> FirstDead() const;

  struct Running {
    std::string role;
    std::string name;
    pid_t pid = 0;
    Announcement listening;
  };
  std::vector<Running> running() const;

 private:
  struct Service {
    ServiceCommand command;
    std::optional<ChildProcess> child;
    Announcement listening;
    absl::Time started;
    RestartPolicy policy;
    std::optional<absl::Time> restart_at;
    bool restarted = false;  // and not yet told, since it does not listen yet
    std::string death;       // how it ended, while it does not run
    std::FILE* log = nullptr;
  };
  absl::Status Launch(Service& service);
  void Pump(absl::Duration timeout);
  void Read(Service& service);
  void HandleDeath(Service& service, int wait_status);
  void RestartDue();
  bool AnyAlive() const;

  SupervisorOptions options_;
  std::vector<Service> services_;
  bool in_service_ = false;
  std::string stopping_role_;  // its deaths are expected
  int num_signals_ = 0;        // SIGINT and SIGTERM seen
  int signal_fd_ = -1;
};

}  // namespace sauva
