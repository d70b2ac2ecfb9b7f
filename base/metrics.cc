#include "base/metrics.h"

#include <prometheus/exposer.h>

#include <exception>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {

const std::vector<double> kTimeToFirstTokenBuckets = {
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kInterTokenBuckets = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5,
                                                .75, 1,    2.5, 5,    7.5, 10, 20, 40, 80};
const std::vector<double> kRequestTimeBuckets = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,  15,  20,
                                                 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kStepTimeBuckets = {.0005, .001, .002, .005, .01, .02, .05, .1,
                                              .2,    .5,   1,    2,    5,   10};

Metrics::Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}
Metrics::~Metrics() = default;

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
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_).Add(labels,
                                                                                    buckets);
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
