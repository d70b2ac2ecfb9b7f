#include "base/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <map>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"

namespace sauva {

const std::vector<double> kTimeToFirstTokenBuckets = {.001, .005, .01, .02, .04, .06, .08, .1,
                                                      .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                                      20,   40,   80,  160, 640, 2560};
const std::vector<double> kInterTokenBuckets = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                                .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kRequestTimeBuckets = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                                 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kStepTimeBuckets = {.0005, .001, .002, .005, .01, .02, .05,
                                              .1,    .2,   .5,   1,    2,   5,   10};

namespace {

// Opens and closes a connection to host:port, a numeric IPv4 address.
void Knock(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  int port = 0;
  if (!absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &peer.sin_addr) != 1) {
    return;
  }
  peer.sin_port = htons(static_cast<uint16_t>(port));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  (void)!connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof peer);
  close(fd);
}

}  // namespace

Metrics::Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}

// The HTTP server looks whether it shall end every two seconds or when somebody connects,
// so somebody connects until it has ended.
Metrics::~Metrics() {
  if (exposer_ == nullptr) return;
  std::atomic<bool> ended = false;
  std::thread ending([&] {
    exposer_.reset();
    ended = true;
  });
  while (!ended) {
    Knock(address_);
    absl::SleepFor(absl::Milliseconds(5));
  }
  ending.join();
}

prometheus::Counter& Metrics::Counter(const std::string& name, const std::string& help,
                                      const MetricLabels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Gauge& Metrics::Gauge(const std::string& name, const std::string& help,
                                  const MetricLabels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Histogram& Metrics::Histogram(const std::string& name, const std::string& help,
                                          const std::vector<double>& buckets,
                                          const MetricLabels& labels) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(*registry_)
      .Add(labels, buckets);
}

absl::Status Metrics::Serve(const std::string& address) {
  Check(exposer_ == nullptr, "metrics are served once");
  try {  // prometheus-cpp reports a failed bind by an exception
    exposer_ = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics at ", address, ": ", error.what()));
  }
  exposer_->RegisterCollectable(registry_);
  const std::vector<int> ports = exposer_->GetListeningPorts();
  Check(!ports.empty(), "an exposer that started listens on a port");
  address_ = absl::StrCat(address.substr(0, address.rfind(':')), ":", ports.front());
  return absl::OkStatus();
}

}  // namespace sauva
