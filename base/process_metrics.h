#pragma once

#include <prometheus/collectable.h>

#include <vector>

namespace sauva {

// What every process tells of itself, under the names Prometheus clients share:
// process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds, process_threads,
// process_start_time_seconds, and sauva_build_info{build_id} = 1. Read from /proc per scrape.
// Thread: any.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace sauva
