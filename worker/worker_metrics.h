#pragma once

#include <map>
#include <string>

#include "base/metrics.h"
#include "worker/step_runner.h"
#include "worker/worker_session.h"

namespace sauva {

// What a worker shows at /metrics: names as other inference servers have them, behind
// `sauva_`. Sessions count in plain integers; Update carries them over.
// Thread: Update on the worker's loop, Observe on any.
class WorkerMetrics {
 public:
  explicit WorkerMetrics(uint64_t memory_budget_bytes);

  // Registry and endpoint, for whoever serves it.
  Metrics& registry() { return metrics_; }
  prometheus::Counter& sent_bytes() { return sent_bytes_; }
  prometheus::Counter& received_bytes() { return received_bytes_; }

  // A step was computed.
  void Observe(const StepComputed& step);
  // Takes over what the sessions have counted.
  void Update(const WorkerSession& session, const StageMemory& memory);
  // How many threads are in NCCL now.
  void ShowNcclThreads(int count) { nccl_threads_.Set(count); }

 private:
  prometheus::Counter& Counter(const std::string& name, const std::string& help,
                               const MetricLabels& labels = {});
  prometheus::Counter& Finished(FinishReason reason);
  prometheus::Counter& Refusals(absl::StatusCode code);
  prometheus::Counter& Failures(absl::StatusCode code);
  void Raise(prometheus::Counter& counter, uint64_t total);
  void UpdateHead(const HeadSession& head, uint32_t num_kv_blocks);
  void UpdateMemory(const StageMemory& memory);

  Metrics metrics_;
  prometheus::Counter& sent_bytes_;
  prometheus::Counter& received_bytes_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& kv_usage_;
  prometheus::Gauge& kv_blocks_;
  prometheus::Gauge& epoch_start_;
  prometheus::Gauge& epoch_counter_;
  prometheus::Gauge& joined_;
  prometheus::Gauge& serving_;
  prometheus::Gauge& stage_index_;
  prometheus::Gauge& stage_layers_;
  prometheus::Gauge& weight_bytes_;
  prometheus::Gauge& kv_bytes_;
  prometheus::Gauge& scratch_bytes_;
  prometheus::Gauge& link_bytes_;
  prometheus::Gauge& nccl_threads_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& cached_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& resumes_;
  prometheus::Counter& stale_messages_;
  prometheus::Counter& epochs_started_;
  prometheus::Counter& epochs_broken_;
  prometheus::Counter& steps_;
  prometheus::Counter& hidden_waits_;
  prometheus::Counter& hidden_wait_seconds_;
  prometheus::Histogram& step_seconds_;
};

}  // namespace sauva
