#include "worker/worker_metrics.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

std::string ReasonName(absl::StatusCode code) {
  return absl::AsciiStrToLower(absl::StatusCodeToString(code));
}

std::string FinishName(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

}  // namespace

WorkerMetrics::WorkerMetrics(uint64_t memory_budget_bytes)
    : sent_bytes_(Counter("sauva_link_bytes_total", "Hidden states between stages, in bytes",
                          {{"direction", "sent"}})),
      received_bytes_(Counter("sauva_link_bytes_total", "Hidden states between stages, in bytes",
                              {{"direction", "received"}})),
      running_(metrics_.Gauge("sauva_num_requests_running", "Sequences that take part in steps")),
      waiting_(metrics_.Gauge("sauva_num_requests_waiting", "Sequences in the head's queue")),
      kv_usage_(metrics_.Gauge("sauva_kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1")),
      kv_blocks_(metrics_.Gauge("sauva_kv_cache_blocks", "KV blocks of the pipeline's pool")),
      epoch_start_(metrics_.Gauge("sauva_epoch_start_seconds",
                                  "Start of the coordinator that gave the epoch, unix time")),
      epoch_counter_(metrics_.Gauge("sauva_epoch_number", "Number of the epoch since then")),
      joined_(metrics_.Gauge("sauva_coordinator_connected",
                             "1 while the coordinator knows of this worker; it serves on without")),
      serving_(metrics_.Gauge("sauva_stage_serving", "1 while a stage is served")),
      stage_index_(
          metrics_.Gauge("sauva_stage_index", "Place of the stage in its pipeline; -1: none")),
      stage_layers_(metrics_.Gauge("sauva_stage_layers", "Layers of the stage")),
      weight_bytes_(metrics_.Gauge("sauva_memory_bytes", "Memory of the stage by share",
                                   {{"share", "weights"}})),
      kv_bytes_(
          metrics_.Gauge("sauva_memory_bytes", "Memory of the stage by share", {{"share", "kv"}})),
      scratch_bytes_(metrics_.Gauge("sauva_memory_bytes", "Memory of the stage by share",
                                    {{"share", "scratch"}})),
      link_bytes_(metrics_.Gauge("sauva_memory_bytes", "Memory of the stage by share",
                                 {{"share", "links"}})),
      nccl_threads_(metrics_.Gauge("sauva_nccl_threads",
                                   "Threads that call NCCL; more than three: calls that hang")),
      prompt_tokens_(Counter("sauva_prompt_tokens_total", "Prompt tokens of accepted requests")),
      cached_tokens_(
          Counter("sauva_prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache")),
      generation_tokens_(Counter("sauva_generation_tokens_total", "Tokens generated")),
      preemptions_(Counter("sauva_num_preemptions_total", "Sequences preempted for memory")),
      resumes_(Counter("sauva_resumed_requests_total",
                       "Requests that brought tokens of another pipeline")),
      stale_messages_(Counter("sauva_stale_messages_total",
                              "Messages of another epoch or an ended stream, dropped")),
      epochs_started_(Counter("sauva_epochs_started_total", "Epochs served")),
      epochs_broken_(Counter("sauva_epochs_broken_total", "Epochs that broke here")),
      steps_(Counter("sauva_stage_steps_total", "Steps computed by this stage")),
      hidden_waits_(Counter("sauva_hidden_waits_total",
                            "Steps whose header was here before their hidden states")),
      hidden_wait_seconds_(Counter("sauva_hidden_wait_seconds_total",
                                   "Time they waited: the stage before, and the link")),
      step_seconds_(metrics_.Histogram("sauva_stage_step_seconds",
                                       "Time this stage takes for a step", kStepTimeBuckets)) {
  metrics_.Gauge("sauva_memory_budget_bytes", "Memory this worker may use for a stage")
      .Set(static_cast<double>(memory_budget_bytes));
  // There from the start, so that their first increase is seen.
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength}) Finished(reason);
  for (const absl::StatusCode code :
       {absl::StatusCode::kUnavailable, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kFailedPrecondition, absl::StatusCode::kInvalidArgument}) {
    Refusals(code);
  }
  for (const absl::StatusCode code : {absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled,
                                      absl::StatusCode::kResourceExhausted}) {
    Failures(code);
  }
}

prometheus::Counter& WorkerMetrics::Finished(FinishReason reason) {
  return Counter("sauva_request_success_total", "Sequences that finished",
                 {{"finished_reason", FinishName(reason)}});
}

prometheus::Counter& WorkerMetrics::Refusals(absl::StatusCode code) {
  return Counter("sauva_refusals_total", "Requests refused", {{"reason", ReasonName(code)}});
}

prometheus::Counter& WorkerMetrics::Failures(absl::StatusCode code) {
  return Counter("sauva_request_failures_total", "Accepted sequences that did not finish",
                 {{"reason", ReasonName(code)}});
}

prometheus::Counter& WorkerMetrics::Counter(const std::string& name, const std::string& help,
                                            const MetricLabels& labels) {
  return metrics_.Counter(name, help, labels);
}

// Sessions count from the process's start, as counters do.
void WorkerMetrics::Raise(prometheus::Counter& counter, uint64_t total) {
  counter.Increment(static_cast<double>(total) - counter.Value());
}

void WorkerMetrics::Observe(const StepComputed& step) {
  if (!step.status.ok()) return;
  steps_.Increment();
  step_seconds_.Observe(step.compute_seconds);
}

void WorkerMetrics::Update(const WorkerSession& session, const StageMemory& memory) {
  const std::optional<StageReport> report = session.Report();
  UpdateHead(session.head(), report ? report->num_kv_blocks : 0);
  UpdateMemory(memory);
  epoch_start_.Set(static_cast<double>(session.epoch() >> 20) / 1e3);
  epoch_counter_.Set(static_cast<double>(session.epoch() & ((1u << 20) - 1)));
  joined_.Set(session.joined() ? 1 : 0);
  serving_.Set(session.serving() ? 1 : 0);
  stage_index_.Set(report ? report->assignment.stage_index : -1);
  stage_layers_.Set(report ? report->assignment.layers().size() : 0);
  const WorkerCounters& counters = session.counters();
  Raise(epochs_started_, counters.epochs_started);
  Raise(epochs_broken_, counters.epochs_broken);
  Raise(hidden_waits_, counters.hidden_waits);
  hidden_wait_seconds_.Increment(absl::ToDoubleSeconds(counters.hidden_wait) -
                                 hidden_wait_seconds_.Value());
  Raise(stale_messages_, counters.stale_messages + session.head().counters().stale_messages +
                             session.stage().counters().stale_messages);
}

void WorkerMetrics::UpdateHead(const HeadSession& head, uint32_t num_kv_blocks) {
  const HeadCounters counters = head.counters();
  running_.Set(head.num_running());
  waiting_.Set(head.num_waiting());
  const double blocks = num_kv_blocks;
  kv_blocks_.Set(blocks);
  kv_usage_.Set(head.serving() && blocks > 0 ? 1 - head.num_free_blocks() / blocks : 0);
  Raise(prompt_tokens_, counters.prompt_tokens);
  Raise(cached_tokens_, counters.cached_tokens);
  Raise(generation_tokens_, counters.generation_tokens);
  Raise(preemptions_, counters.preemptions);
  Raise(resumes_, counters.resumed_requests);
  for (const auto& [reason, count] : counters.finished) Raise(Finished(reason), count);
  for (const auto& [code, count] : counters.refusals) Raise(Refusals(code), count);
  for (const auto& [code, count] : counters.failures) Raise(Failures(code), count);
}

void WorkerMetrics::UpdateMemory(const StageMemory& memory) {
  weight_bytes_.Set(static_cast<double>(memory.weight_bytes));
  kv_bytes_.Set(static_cast<double>(memory.kv_bytes));
  scratch_bytes_.Set(static_cast<double>(memory.scratch_bytes));
  link_bytes_.Set(static_cast<double>(memory.link_bytes));
}

}  // namespace sauva
