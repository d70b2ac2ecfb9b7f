#pragma once

#include <map>
#include <string>

#include "base/metrics.h"
#include "coordinator/coordinator.h"

namespace sauva {

// Shows a coordinator's counters and state as Prometheus metrics.
// Thread: the coordinator's.
class CoordinatorMetrics {
 public:
  // `metrics` must outlive this object.
  explicit CoordinatorMetrics(Metrics& metrics) : metrics_(metrics) {}

  void Show(const Coordinator& coordinator, absl::Time now);

 private:
  // Raises a counter to `value`, which never falls.
  void Raise(const std::string& name, const std::string& help, const MetricLabels& labels,
             uint64_t value);
  void Set(const std::string& name, const std::string& help, const MetricLabels& labels,
           double value);
  void ShowCounters(const CoordinatorCounters& counters);

  Metrics& metrics_;
};

}  // namespace sauva
