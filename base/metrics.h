#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace prometheus {
class Exposer;
}

namespace sauva {

using MetricLabels = std::map<std::string, std::string>;

// Under which names an endpoint shows metrics that other inference servers have too.
enum class MetricsNames {
  kOurs,         // sauva_…
  kOursAndVllm,  // sauva_… and vllm:…, for autoscalers and gateways that know only these
};

// The metrics of one process and the HTTP endpoint that shows them at /metrics.
// Asking for the same name and labels again returns the same metric; references stay
// valid as long as this object. Keep them: the lookup takes a lock.
// Thread: any.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  prometheus::Counter& Counter(const std::string& name, const std::string& help,
                               const MetricLabels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help,
                           const MetricLabels& labels = {});
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                   const std::vector<double>& buckets,
                                   const MetricLabels& labels = {});

  // Serves /metrics at host:port; port 0 picks a free one. Once. Metrics of the process
  // itself (base/process_metrics.h) are there too.
  // Errors: UNAVAILABLE naming the address when it cannot be bound.
  absl::Status Serve(const std::string& address, MetricsNames names = MetricsNames::kOurs);

  // host:port that is served; empty before Serve.
  const std::string& address() const { return address_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;  // the exposer's interface shares it
  std::vector<std::shared_ptr<prometheus::Collectable>> others_;  // the exposer shares them
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_;
};

// Bucket bounds in seconds that dashboards for LLM servers know.
extern const std::vector<double> kTimeToFirstTokenBuckets;
extern const std::vector<double> kInterTokenBuckets;
extern const std::vector<double> kRequestTimeBuckets;
extern const std::vector<double> kStepTimeBuckets;

}  // namespace sauva
