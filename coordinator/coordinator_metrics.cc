#include "coordinator/coordinator_metrics.h"

namespace sauva {

void CoordinatorMetrics::Raise(const std::string& name, const std::string& help,
                               const MetricLabels& labels, uint64_t value) {
  prometheus::Counter& counter = metrics_.Counter(name, help, labels);
  const double difference = static_cast<double>(value) - counter.Value();
  if (difference > 0) counter.Increment(difference);
}

void CoordinatorMetrics::Set(const std::string& name, const std::string& help,
                             const MetricLabels& labels, double value) {
  metrics_.Gauge(name, help, labels).Set(value);
}

void CoordinatorMetrics::Show(const Coordinator& coordinator, absl::Time now) {
  ShowCounters(coordinator.counters());
  const ClusterStatus status = coordinator.Status(now);
  std::map<std::string, int> workers{{"serving", 0}, {"spare", 0}, {"draining", 0}};
  for (const WorkerStatus& worker : status.workers) {
    ++workers[worker.draining ? "draining" : worker.epoch != 0 ? "serving" : "spare"];
  }
  for (const auto& [state, count] : workers) {
    Set("sauva_workers", "Workers that have joined", {{"state", state}}, count);
  }
  for (const ServedModel& model : status.models) {
    Set("sauva_pipelines_ready", "Pipelines that take requests", {{"model_name", model.model.name}},
        model.ready_pipelines);
  }
  Set("sauva_pipelines", "Pipelines, ready or loading", {},
      static_cast<double>(status.pipelines.size()));
  Set("sauva_nccl_pairs_avoided", "Pairs of workers between which NCCL is not tried now", {},
      static_cast<double>(status.avoided_links.size()));
  Set("sauva_num_dispatches_waiting", "Dispatches that wait for a pipeline", {},
      status.waiting_dispatches);
  Set("sauva_placement_refused", "1 while a pipeline is missing that cannot be placed", {},
      status.placement_error.empty() ? 0 : 1);
}

void CoordinatorMetrics::ShowCounters(const CoordinatorCounters& counters) {
  const std::pair<const char*, uint64_t> epochs[] = {{"started", counters.epochs_started},
                                                     {"ready", counters.epochs_ready},
                                                     {"adopted", counters.epochs_adopted},
                                                     {"ended", counters.epochs_ended}};
  for (const auto& [event, count] : epochs) {
    Raise("sauva_epochs_total", "Epochs of pipelines, by what became of them", {{"event", event}},
          count);
  }
  Raise("sauva_placements_total", "Searches for a placement", {}, counters.placements);
  Raise("sauva_placement_refusals_total", "Searches that left a pipeline missing", {},
        counters.placement_refusals);
  Raise("sauva_placement_moved_bytes_total", "Weight bytes that placements had read anew", {},
        counters.moved_bytes);
  Raise("sauva_workers_lost_total", "Workers lost", {}, counters.workers_lost);
  Raise("sauva_nccl_connect_failures_total", "NCCL links that failed before a step had passed", {},
        counters.link_failures);
  Raise("sauva_nccl_fallbacks_total", "Pairs of workers given up for NCCL after such failures", {},
        counters.links_given_up);
  // There from the start, so that their first increase is seen.
  for (const char* outcome : {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE",
                              "INVALID_ARGUMENT", "NOT_FOUND"}) {
    Raise("sauva_dispatches_total", "Dispatches, by status code", {{"outcome", outcome}}, 0);
  }
  for (const auto& [outcome, count] : counters.dispatches) {
    Raise("sauva_dispatches_total", "Dispatches, by status code", {{"outcome", outcome}}, count);
  }
  Raise("sauva_refusals_total", "Joins, loads and drains refused, by status code",
        {{"reason", "FAILED_PRECONDITION"}}, 0);
  for (const auto& [reason, count] : counters.refusals) {
    Raise("sauva_refusals_total", "Joins, loads and drains refused, by status code",
          {{"reason", reason}}, count);
  }
}

}  // namespace sauva
