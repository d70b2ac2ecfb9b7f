#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sauva {

// A program to run, found by path, with its arguments.
struct ChildCommand {
  std::string role;  // "worker"; what it announces itself as
  std::string name;  // "worker-1"; for people
  std::string binary;
  std::vector<std::string> arguments;
};

// Where a service listens, as it announced on its standard output.
struct Announcement {
  std::string role;
  std::string address;
  std::string metrics;
  bool operator==(const Announcement&) const = default;
};

// Reads a line that AnnounceListening wrote; nothing for any other line.
std::optional<Announcement> ParseAnnouncement(const std::string& line);

// How a process ended, for people: "exit code 1", "signal 9 (Killed)".
std::string DescribeExit(int wait_status);

// One running child. It dies with this process, even when this process is killed.
// Its log (standard error) is kept as the last kMaxLogLines lines and handed to `on_log`.
// Thread: the one that started it, which must be the main thread: Linux ties a child's
// life to the thread that made it.
class ChildProcess {
 public:
  static constexpr size_t kMaxLogLines = 40;
  static constexpr size_t kMaxLineBytes = 4096;  // longer ones are cut

  // Errors: NOT_FOUND naming the binary; INTERNAL when no process can be made.
  static absl::StatusOr<ChildProcess> Start(const ChildCommand& command);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  // Kills the child if it still runs.
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  int out_fd() const { return out_.fd; }  // for poll; -1 once closed
  int error_fd() const { return error_.fd; }

  // Takes what the child has written so far, without waiting.
  void ReadOutput(const std::function<void(const std::string& line)>& on_log);
  const std::optional<Announcement>& announcement() const { return announcement_; }
  const std::deque<std::string>& last_log_lines() const { return log_; }

  void Signal(int signal) const;
  // The wait status if the child has ended, without waiting.
  std::optional<int> TryReap();
  bool running() const { return pid_ > 0 && !reaped_; }

 private:
  struct Pipe {
    int fd = -1;
    std::string partial;  // of a line
  };
  ChildProcess() = default;
  static std::vector<std::string> TakeLines(Pipe& pipe);
  void Release();

  pid_t pid_ = -1;
  bool reaped_ = false;
  Pipe out_;
  Pipe error_;
  std::deque<std::string> log_;
  std::optional<Announcement> announcement_;
};

}  // namespace sauva
