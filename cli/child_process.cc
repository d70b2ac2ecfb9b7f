#include "cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

// In the new process, between fork and exec: only calls that are safe there.
[[noreturn]] void BecomeChild(char* const* argv, int out, int error, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl
  // A terminal's Ctrl-C goes to the parent alone, which then stops children in order.
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(error, STDERR_FILENO);
  execv(argv[0], argv);
  const char* reason = strerror(errno);
  (void)!write(STDERR_FILENO, reason, strlen(reason));
  _exit(127);
}

struct PipeEnds {
  int read = -1;
  int write = -1;
};

absl::StatusOr<PipeEnds> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot make a pipe: ", strerror(errno)));
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return PipeEnds{ends[0], ends[1]};
}

}  // namespace

std::optional<Announcement> ParseAnnouncement(const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (text("event") != "listening" || text("address").empty()) return std::nullopt;
  return Announcement{text("role"), text("address"), text("metrics")};
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return absl::StrCat("signal ", number, " (", strsignal(number), ")");
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status));
}

absl::StatusOr<ChildProcess> ChildProcess::Start(const ChildCommand& command) {
  if (access(command.binary.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("cannot run ", command.binary, ": ", strerror(errno)));
  }
  absl::StatusOr<PipeEnds> out = MakePipe();
  if (!out.ok()) return out.status();
  ChildProcess child;
  child.out_.fd = out->read;
  absl::StatusOr<PipeEnds> error = MakePipe();
  if (!error.ok()) {
    close(out->write);
    return error.status();
  }
  child.error_.fd = error->read;

  std::vector<char*> argv{const_cast<char*>(command.binary.c_str())};
  for (const std::string& argument : command.arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  child.pid_ = fork();
  if (child.pid_ == 0) BecomeChild(argv.data(), out->write, error->write, parent);
  const int fork_error = errno;
  close(out->write);
  close(error->write);
  if (child.pid_ < 0) {
    return absl::InternalError(
        absl::StrCat("cannot start ", command.name, ": ", strerror(fork_error)));
  }
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept { *this = std::move(other); }

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  Release();
  pid_ = std::exchange(other.pid_, -1);
  reaped_ = other.reaped_;
  out_ = {std::exchange(other.out_.fd, -1), std::move(other.out_.partial)};
  error_ = {std::exchange(other.error_.fd, -1), std::move(other.error_.partial)};
  log_ = std::move(other.log_);
  announcement_ = std::move(other.announcement_);
  return *this;
}

ChildProcess::~ChildProcess() { Release(); }

void ChildProcess::Release() {
  if (running()) {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
  if (out_.fd >= 0) close(std::exchange(out_.fd, -1));
  if (error_.fd >= 0) close(std::exchange(error_.fd, -1));
}

std::vector<std::string> ChildProcess::TakeLines(Pipe& pipe) {
  std::vector<std::string> lines;
  char buffer[8192];
  while (pipe.fd >= 0) {
    const ssize_t got = read(pipe.fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) {
      close(std::exchange(pipe.fd, -1));
      if (!pipe.partial.empty()) lines.push_back(std::exchange(pipe.partial, {}));
      break;
    }
    for (const char c : std::string_view(buffer, static_cast<size_t>(got))) {
      if (c == '\n') {
        lines.push_back(std::exchange(pipe.partial, {}));
      } else if (pipe.partial.size() < kMaxLineBytes) {
        pipe.partial.push_back(c);
      }
    }
  }
  return lines;
}

void ChildProcess::ReadOutput(const std::function<void(const std::string& line)>& on_log) {
  for (const std::string& line : TakeLines(out_)) {
    if (auto announced = ParseAnnouncement(line)) announcement_ = std::move(announced);
  }
  for (std::string& line : TakeLines(error_)) {
    on_log(line);
    log_.push_back(std::move(line));
    if (log_.size() > kMaxLogLines) log_.pop_front();
  }
}

void ChildProcess::Signal(int signal) const {
  if (running()) kill(pid_, signal);
}

std::optional<int> ChildProcess::TryReap() {
  int status = 0;
  if (!running() || waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  reaped_ = true;
  return status;
}

}  // namespace sauva
