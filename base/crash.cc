#include "base/crash.h"

#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/build_id.h"

namespace sauva {
namespace {

constexpr int kMaxFrames = 64;

// Made before it is needed: a handler may not allocate. Null-terminated.
char g_line[256];

void WriteText(const char* text) { (void)!write(STDERR_FILENO, text, strlen(text)); }

const char* NameOf(int number) {
  switch (number) {
    case SIGSEGV:
      return "SIGSEGV";
    case SIGBUS:
      return "SIGBUS";
    case SIGFPE:
      return "SIGFPE";
    case SIGILL:
      return "SIGILL";
    default:
      return "SIGABRT";
  }
}

// Runs once per signal: the default action is back already, and the signal, raised again,
// meets it when the handler returns.
void OnCrash(int number) {
  WriteText(g_line);
  WriteText(NameOf(number));
  WriteText("; stack:\n");
  void* frames[kMaxFrames];
  backtrace_symbols_fd(frames, backtrace(frames, kMaxFrames), STDERR_FILENO);
  raise(number);
}

}  // namespace

void ReportCrashes(std::string_view role) {
  const std::string line =
      absl::StrCat("sauva-", std::string(role), " build ", BuildId(), " crashed: ");
  strncpy(g_line, line.c_str(), sizeof(g_line) - 1);
  // The first call loads the unwinder, which a handler could not do safely.
  void* frame[1];
  (void)backtrace(frame, 1);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    struct sigaction present {};
    if (sigaction(number, nullptr, &present) != 0 || present.sa_handler != SIG_DFL) continue;
    struct sigaction ours {};
    ours.sa_handler = OnCrash;
    ours.sa_flags = SA_RESETHAND;
    sigemptyset(&ours.sa_mask);
    sigaction(number, &ours, nullptr);
  }
}

}  // namespace sauva
