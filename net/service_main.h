#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "net/process_health.h"

namespace sauva {

// How a service ends; scripts and orchestrators tell causes apart by it. Stable.
enum ServiceExit : int {
  kServiceDone = 0,         // asked to end, and drained
  kServiceFailed = 1,       // anything without a code of its own
  kServiceUsage = 2,        // wrong flags: the same command cannot succeed
  kServiceNoAddress = 3,    // an address cannot be listened on
  kServiceBadFiles = 4,     // model, certificates or device do not do: see the message
  kServiceCutStreams = 5,   // the drain timeout passed; what still ran was cut off
  kServiceEndedAtOnce = 6,  // a second signal, or one before it had started
};

// What the main() of every service does the same: flags, log, health port, metrics, signals,
// the way to the exit code. What differs is a Service.
class Service {
 public:
  struct Addresses {
    std::string address;  // host:port really taken
    std::string metrics;  // empty: not served
  };
  virtual ~Service() = default;

  // After its flags were parsed. Errors: INVALID_ARGUMENT naming flag and value.
  virtual absl::Status Configure() = 0;
  // Serves; tells `health` when it is ready and which loops to watch.
  virtual absl::StatusOr<Addresses> Start(ProcessHealth& health, MetricsNames names) = 0;
  // Takes no new work, lets what runs end. Returns how many streams it had to cut off.
  virtual int Drain() = 0;
};

struct ServiceDescription {
  std::string role;   // "worker"; the program is sauva-ROLE
  std::string about;  // one line for --help
};

// Runs the service that `make` declares on the flags it is given, until SIGTERM or SIGINT,
// then drains it. A second signal ends the process at once. SIGUSR1 sets the log level to
// debug, SIGUSR2 back to --log-level. Returns the exit code.
int RunService(const ServiceDescription& description, int argc, char** argv,
               const std::function<std::unique_ptr<Service>(CLI::App&)>& make);

}  // namespace sauva
