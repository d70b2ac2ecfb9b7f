#include "net/service_main.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <iostream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/announce.h"
#include "base/build_id.h"
#include "base/crash.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

// glibc gives every new thread an arena of its own, and the threads of gRPC come and go: each
// arena keeps what its threads once needed, so memory creeps up for hours. One is enough, since
// threads keep small pieces for themselves and a step allocates nothing.
constexpr int kMaxArenas = 1;
// glibc keeps pages that a burst of requests took, except at the end of its heap. Giving them back
// takes a fraction of a millisecond: weights and caches are not in the heap.
constexpr std::chrono::seconds kTrimInterval(10);

// After the drain: for threads in the middle of a long piece of work, such as loading.
constexpr absl::Duration kPatienceWithThreads = absl::Seconds(2);

struct CommonFlags {
  std::string health;
  std::string log_level = "info";
  std::string metrics_compat = "none";
};

void AddCommonFlags(CLI::App& app, CommonFlags& flags) {
  app.add_option("--health", flags.health,
                 "HOST:PORT that serves grpc.health.v1 in plaintext, with the services startup, "
                 "liveness and readiness; empty: none");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error")
      ->capture_default_str();
  app.add_option("--metrics-compat", flags.metrics_compat,
                 "none, or vllm: metrics also under the names of vLLM")
      ->check(CLI::IsMember({"none", "vllm"}))
      ->capture_default_str();
}

int ExitOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return kServiceNoAddress;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return kServiceBadFiles;
    default:
      return kServiceFailed;
  }
}

// Takes the signals of the process, on a thread of its own.
class Signals {
 public:
  explicit Signals(std::string log_level) : log_level_(std::move(log_level)) {}

  // Blocks them for this thread and those it starts. Before any other thread starts.
  void Take() {
    sigemptyset(&set_);
    for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::thread([this] { Run(); }).detach();
  }

  void SetStarted() { started_ = true; }
  // Waits for the signal to end. Meanwhile gives back what bursts of requests left behind.
  void AwaitEnd() {
    std::future<void> end = end_.get_future();
    while (end.wait_for(kTrimInterval) == std::future_status::timeout) malloc_trim(0);
  }

 private:
  [[noreturn]] void Run() {
    for (int ends = 0;;) {
      int number = 0;
      sigwait(&set_, &number);
      if (number == SIGUSR1 || number == SIGUSR2) {
        SetLogLevel(number == SIGUSR1 ? "debug" : log_level_).IgnoreError();
        LogInfo("log level", {{"level", number == SIGUSR1 ? "debug" : log_level_}});
        continue;
      }
      LogInfo("signal", {{"number", number}});
      if (++ends > 1 || !started_) _exit(kServiceEndedAtOnce);
      end_.set_value();
    }
  }

  const std::string log_level_;
  sigset_t set_;
  std::atomic<bool> started_ = false;
  std::promise<void> end_;
};

int ServeUntilTold(const ServiceDescription& description, const CommonFlags& flags,
                   std::unique_ptr<Service> service) {
  // Never destroyed: its thread may wait until the process is gone.
  static Signals* const signals = new Signals(flags.log_level);
  signals->Take();
  const auto failed = [&](const absl::Status& status) {
    std::cerr << "sauva-" << description.role << ": " << status.message() << '\n';
    return ExitOf(status);
  };
  auto health = ProcessHealth::Start(flags.health);
  if (!health.ok()) return failed(health.status());
  const MetricsNames names =
      flags.metrics_compat == "vllm" ? MetricsNames::kOursAndVllm : MetricsNames::kOurs;
  const absl::StatusOr<Service::Addresses> addresses = service->Start(**health, names);
  if (!addresses.ok()) return failed(addresses.status());
  (*health)->SetStarted();
  signals->SetStarted();
  LogInfo("listens", {{"address", addresses->address},
                      {"metrics", addresses->metrics},
                      {"health", (*health)->address()},
                      {"build", BuildId()}});
  AnnounceListening(description.role, addresses->address, addresses->metrics, (*health)->address());
  signals->AwaitEnd();
  (*health)->SetReady(false);
  const int num_cut = service->Drain();
  const int code = num_cut > 0 ? kServiceCutStreams : kServiceDone;
  LogInfo("drained", {{"streams_cut", num_cut}});
  std::thread([code] {
    absl::SleepFor(kPatienceWithThreads);
    LogInfo("ends without waiting for work in hand");
    _exit(code);
  }).detach();
  (*health)->Unwatch();
  service.reset();
  return code;
}

}  // namespace

int RunService(const ServiceDescription& description, int argc, char** argv,
               const std::function<std::unique_ptr<Service>(CLI::App&)>& make) {
  mallopt(M_ARENA_MAX, kMaxArenas);
  CLI::App app(absl::StrCat("sauva-", description.role, ": ", description.about),
               absl::StrCat("sauva-", description.role));
  app.set_version_flag("--version", BuildId());
  CommonFlags flags;
  std::unique_ptr<Service> service = make(app);
  AddCommonFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kServiceDone : kServiceUsage;
  }
  absl::Status status = service->Configure();
  if (status.ok()) status = ConfigureLog(description.role, flags.log_level);
  if (!status.ok()) {
    std::cerr << "sauva-" << description.role << ": " << status.message() << '\n';
    return kServiceUsage;
  }
  ReportCrashes(description.role);
  return ServeUntilTold(description, flags, std::move(service));
}

}  // namespace sauva
