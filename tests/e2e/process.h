#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"

namespace sauva {

// A program run by a test, which it does not outlive. Standard output is read line by
// line; standard error goes to a file.
// Thread: the one that started it.
class TestProcess {
 public:
  TestProcess(const std::vector<std::string>& command, const std::string& error_file);
  ~TestProcess();
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  pid_t pid() const { return pid_; }
  // The next line of standard output, or nothing at the end or at `deadline`.
  std::optional<std::string> ReadLine(absl::Time deadline);
  // Waits until so many bytes of standard output wait to be read; false when it ends
  // before, or at `deadline`. Takes nothing away.
  bool AwaitOutput(size_t num_bytes, absl::Time deadline);
  // The rest of standard output, up to its end or `deadline`.
  std::string ReadRest(absl::Time deadline);
  void Signal(int signal) const;
  // The exit code (128 + signal for a killed one), or nothing at `deadline`.
  std::optional<int> Wait(absl::Time deadline);

 private:
  bool ReadMore(absl::Time deadline);

  pid_t pid_ = -1;
  int out_ = -1;
  std::string buffer_;
  std::optional<int> exit_code_;
};

struct FinishedProcess {
  int exit_code = -1;
  std::string out;
  std::string error;
};

// Runs a program to its end, at most for a minute.
FinishedProcess RunProcess(const std::vector<std::string>& command);

// Of this machine's memory, what a process takes now.
uint64_t ResidentBytes(pid_t pid);

std::string ReadWholeFile(const std::string& path);

}  // namespace sauva
