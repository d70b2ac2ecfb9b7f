#include "cli/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);

sigset_t HandledSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGCHLD);
  return signals;
}

std::string LastLines(const ChildProcess& child) {
  return absl::StrJoin(child.last_log_lines(), "\n");
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options) : options_(std::move(options)) {
  const sigset_t signals = HandledSignals();
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  Check(signal_fd_ >= 0, "a process has room for a signal descriptor");
}

Supervisor::~Supervisor() {
  for (Service& service : services_) {
    service.child.reset();
    if (service.log != nullptr) std::fclose(service.log);
  }
  close(signal_fd_);
  const sigset_t signals = HandledSignals();
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

absl::StatusOr<size_t> Supervisor::Start(ServiceCommand command) {
  Service service{.command = std::move(command)};
  if (!options_.log_directory.empty()) {
    const std::string path =
        absl::StrCat(options_.log_directory, "/", service.command.command.name, ".log");
    service.log = std::fopen(path.c_str(), "ae");
    if (service.log == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("cannot write the log ", path));
    }
  }
  services_.push_back(std::move(service));
  RETURN_IF_ERROR(Launch(services_.back()));
  return services_.size() - 1;
}

absl::Status Supervisor::Launch(Service& service) {
  ChildCommand command = service.command.command;
  command.arguments.insert(command.arguments.end(), {"--listen", service.command.listen,
                                                     "--metrics", service.command.metrics});
  ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Start(command));
  service.child.emplace(std::move(child));
  service.started = absl::Now();
  service.restart_at.reset();
  service.listening = {};
  service.death.clear();
  return absl::OkStatus();
}

absl::Status Supervisor::AwaitListening(const std::string& role, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  const auto waits = [&](const Service& service) {
    return service.command.command.role == role && service.listening.address.empty();
  };
  while (std::any_of(services_.begin(), services_.end(), waits)) {
    if (num_signals_ > 0) return absl::CancelledError("interrupted");
    if (auto dead = FirstDead()) return absl::UnavailableError(*dead);
    if (absl::Now() > deadline) {
      const Service& late = *std::find_if(services_.begin(), services_.end(), waits);
      return absl::DeadlineExceededError(absl::StrCat(
          late.command.command.name, " did not listen within ", absl::FormatDuration(timeout),
          "; its last log lines:\n", late.child ? LastLines(*late.child) : ""));
    }
    Pump(kTick);
  }
  return absl::OkStatus();
}

absl::Status Supervisor::RunUntil(const std::function<bool()>& done) {
  while (!done()) {
    if (num_signals_ > 0) return absl::CancelledError("interrupted");
    if (!AnyAlive()) return absl::AbortedError("all processes of the cluster have ended");
    Pump(kTick);
  }
  return absl::OkStatus();
}

void Supervisor::Stop(const std::string& role, absl::Duration grace) {
  stopping_role_ = role;
  const int signals_before = num_signals_;
  const absl::Time deadline = absl::Now() + grace;
  const auto is_running = [&](const Service& service) {
    return service.command.command.role == role && service.child && service.child->running();
  };
  for (Service& service : services_) {
    if (service.command.command.role == role) service.restart_at.reset();
    if (is_running(service)) service.child->Signal(SIGTERM);
  }
  while (std::any_of(services_.begin(), services_.end(), is_running)) {
    if (absl::Now() > deadline || num_signals_ > signals_before) {
      for (Service& service : services_) {
        if (is_running(service)) service.child->Signal(SIGKILL);
      }
    }
    Pump(kTick);
  }
}

std::optional<std::string> Supervisor::FirstDead() const {
  for (const Service& service : services_) {
    if (service.death.empty()) continue;
    return absl::StrCat(service.command.command.name, " ended at its start: ", service.death);
  }
  return std::nullopt;
}

std::vector<Supervisor::Running> Supervisor::running() const {
  std::vector<Running> result;
  for (const Service& service : services_) {
    if (!service.child || !service.child->running()) continue;
    result.push_back({service.command.command.role, service.command.command.name,
                      service.child->pid(), service.listening});
  }
  return result;
}

void Supervisor::Pump(absl::Duration timeout) {
  std::vector<pollfd> descriptors{{signal_fd_, POLLIN, 0}};
  for (const Service& service : services_) {
    if (!service.child) continue;
    descriptors.push_back({service.child->out_fd(), POLLIN, 0});  // poll skips -1
    descriptors.push_back({service.child->error_fd(), POLLIN, 0});
  }
  poll(descriptors.data(), descriptors.size(), static_cast<int>(timeout / absl::Milliseconds(1)));
  signalfd_siginfo info;
  while (read(signal_fd_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) ++num_signals_;
  }
  for (Service& service : services_) {
    if (!service.child) continue;
    // Reaped before the last read, so that all of a dead child's log is there.
    const std::optional<int> status = service.child->TryReap();
    Read(service);
    if (status) HandleDeath(service, *status);
  }
  RestartDue();
}

void Supervisor::Read(Service& service) {
  service.child->ReadOutput([&](const std::string& line) {
    if (service.log != nullptr) std::fprintf(service.log, "%s\n", line.c_str());
  });
  if (service.log != nullptr) std::fflush(service.log);
  if (!service.listening.address.empty() || !service.child->announcement()) return;
  service.listening = *service.child->announcement();
  if (service.command.restart_address == RestartAddress::kSame) {
    service.command.listen = service.listening.address;
    service.command.metrics = service.listening.metrics;
  }
  if (!std::exchange(service.restarted, false)) return;
  const ChildCommand& command = service.command.command;
  options_.on_event({ChildEvent::Kind::kRestarted, command.role, command.name, service.child->pid(),
                     "", service.listening});
}

void Supervisor::HandleDeath(Service& service, int wait_status) {
  const ChildCommand& command = service.command.command;
  const pid_t pid = service.child->pid();
  service.death =
      absl::StrCat(DescribeExit(wait_status), "; its last log lines:\n", LastLines(*service.child));
  service.child.reset();
  if (!in_service_ || command.role == stopping_role_) return;
  std::string detail = DescribeExit(wait_status);
  if (options_.restart && num_signals_ == 0) {
    const absl::Duration delay = service.policy.NextDelay(absl::Now() - service.started);
    service.restart_at = absl::Now() + delay;
    absl::StrAppend(&detail, "; starting again in ", absl::FormatDuration(delay));
  }
  options_.on_event({ChildEvent::Kind::kDied, command.role, command.name, pid, detail, {}});
}

void Supervisor::RestartDue() {
  for (Service& service : services_) {
    if (!service.restart_at || *service.restart_at > absl::Now()) continue;
    service.restarted = true;
    if (const absl::Status status = Launch(service); !status.ok()) {
      const ChildCommand& command = service.command.command;
      service.restart_at = absl::Now() + service.policy.NextDelay(absl::ZeroDuration());
      options_.on_event({ChildEvent::Kind::kDied,
                         command.role,
                         command.name,
                         0,
                         std::string(status.message()),
                         {}});
    }
  }
}

bool Supervisor::AnyAlive() const {
  return std::any_of(services_.begin(), services_.end(), [](const Service& service) {
    return service.restart_at || (service.child && service.child->running());
  });
}

}  // namespace sauva
