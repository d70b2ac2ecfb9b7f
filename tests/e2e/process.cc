#include "tests/e2e/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

[[noreturn]] void Exec(char* const* argv, int out, const char* error_file) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int error = open(error_file, O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(error, STDERR_FILENO);
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

TestProcess::TestProcess(const std::vector<std::string>& command, const std::string& error_file) {
  int ends[2];
  Check(pipe2(ends, O_CLOEXEC) == 0, "a test can make a pipe");
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_ = fork();
  Check(pid_ >= 0, "a test can start a process");
  if (pid_ == 0) Exec(argv.data(), ends[1], error_file.c_str());
  close(ends[1]);
  out_ = ends[0];
}

TestProcess::~TestProcess() {
  if (!exit_code_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(out_);
}

// False at the end of standard output or at `deadline`.
bool TestProcess::ReadMore(absl::Time deadline) {
  pollfd descriptor{out_, POLLIN, 0};
  const auto wait_ms = std::max<int64_t>(0, (deadline - absl::Now()) / absl::Milliseconds(1));
  if (poll(&descriptor, 1, static_cast<int>(std::min<int64_t>(wait_ms, 1 << 30))) <= 0) {
    return false;
  }
  char bytes[4096];
  const ssize_t got = read(out_, bytes, sizeof bytes);
  if (got <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(got));
  return true;
}

std::optional<std::string> TestProcess::ReadLine(absl::Time deadline) {
  size_t end = 0;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (!ReadMore(deadline)) return std::nullopt;
  }
  const std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

bool TestProcess::AwaitOutput(size_t num_bytes, absl::Time deadline) {
  while (buffer_.size() < num_bytes) {
    if (!ReadMore(deadline)) return false;
  }
  return true;
}

std::string TestProcess::ReadRest(absl::Time deadline) {
  while (ReadMore(deadline)) {
  }
  return std::exchange(buffer_, {});
}

void TestProcess::Signal(int signal) const {
  if (!exit_code_) kill(pid_, signal);
}

std::optional<int> TestProcess::Wait(absl::Time deadline) {
  while (!exit_code_) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (absl::Now() > deadline) {
      return std::nullopt;
    } else {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  return exit_code_;
}

FinishedProcess RunProcess(const std::vector<std::string>& command) {
  const TemporaryDirectory directory;
  const std::string error_file = directory.path() + "/stderr";
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  FinishedProcess result;
  TestProcess process(command, error_file);
  result.out = process.ReadRest(deadline);
  result.exit_code = process.Wait(deadline).value_or(-1);
  result.error = ReadWholeFile(error_file);
  return result;
}

uint64_t ResidentBytes(pid_t pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace sauva
