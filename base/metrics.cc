#include "base/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <map>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/process_metrics.h"

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

// Shows metrics of `registry` that vLLM has too under vLLM's names. Names and meanings are
// those of vllm/v1/metrics/loggers.py.
class VllmNames final : public prometheus::Collectable {
 public:
  // Shared: the registry is the process's, which shows it under our names.
  explicit VllmNames(std::shared_ptr<const prometheus::Registry> registry)
      : registry_(std::move(registry)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    static const std::set<std::string_view> kShared = {
        "num_requests_running",        "num_requests_waiting",        "kv_cache_usage_perc",
        "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
        "request_queue_time_seconds",  "prompt_tokens_total",         "generation_tokens_total",
        "request_success_total",       "num_preemptions_total",       "prompt_tokens_cached_total"};
    constexpr std::string_view kOurs = "sauva_";
    std::vector<prometheus::MetricFamily> shown;
    for (prometheus::MetricFamily& family : registry_->Collect()) {
      if (family.name.compare(0, kOurs.size(), kOurs) != 0) continue;
      const std::string suffix = family.name.substr(kOurs.size());
      if (!kShared.contains(suffix)) continue;
      family.name = "vllm:" + suffix;
      shown.push_back(std::move(family));
    }
    return shown;
  }

 private:
  const std::shared_ptr<const prometheus::Registry> registry_;
};

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

absl::Status Metrics::Serve(const std::string& address, MetricsNames names) {
  Check(exposer_ == nullptr, "metrics are served once");
  try {  // prometheus-cpp reports a failed bind by an exception
    exposer_ = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics at ", address, ": ", error.what()));
  }
  others_.push_back(std::make_shared<ProcessMetrics>());
  if (names == MetricsNames::kOursAndVllm) {
    others_.push_back(std::make_shared<VllmNames>(registry_));
  }
  exposer_->RegisterCollectable(registry_);
  for (const auto& other : others_) exposer_->RegisterCollectable(other);
  const std::vector<int> ports = exposer_->GetListeningPorts();
  Check(!ports.empty(), "an exposer that started listens on a port");
  address_ = absl::StrCat(address.substr(0, address.rfind(':')), ":", ports.front());
  return absl::OkStatus();
}

}  // namespace sauva
