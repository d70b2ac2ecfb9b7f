#include "gateway/gateway_metrics.h"

#include <initializer_list>

namespace sauva {
namespace {

constexpr std::initializer_list<absl::StatusCode> kOrdinaryCodes = {
    absl::StatusCode::kCancelled,         absl::StatusCode::kInvalidArgument,
    absl::StatusCode::kDeadlineExceeded,  absl::StatusCode::kNotFound,
    absl::StatusCode::kResourceExhausted, absl::StatusCode::kInternal,
    absl::StatusCode::kUnavailable};

MetricLabels With(MetricLabels labels, const std::string& name, const std::string& value) {
  labels[name] = value;
  return labels;
}

prometheus::Histogram& Seconds(Metrics& metrics, const MetricLabels& labels,
                               const std::string& name, const std::string& help,
                               const std::vector<double>& buckets) {
  return metrics.Histogram("sauva_" + name + "_seconds", help, buckets, labels);
}

}  // namespace

ModelMetrics::ModelMetrics(Metrics& metrics, const std::string& model_name)
    : metrics_(metrics),
      labels_{{"model_name", model_name}},
      running_(
          metrics.Gauge("sauva_num_requests_running", "Samples that a head has taken", labels_)),
      waiting_(metrics.Gauge("sauva_num_requests_waiting", "Samples that no head has taken yet",
                             labels_)),
      kv_usage_(metrics.Gauge("sauva_kv_cache_usage_perc",
                              "Share of KV blocks in use over the model's pipelines, 0 to 1",
                              labels_)),
      time_to_first_token_(Seconds(metrics, labels_, "time_to_first_token",
                                   "From a request's arrival to its first token",
                                   kTimeToFirstTokenBuckets)),
      inter_token_latency_(Seconds(metrics, labels_, "inter_token_latency",
                                   "Between two tokens of one sample", kInterTokenBuckets)),
      e2e_latency_(Seconds(metrics, labels_, "e2e_request_latency",
                           "From a request's arrival to its end", kRequestTimeBuckets)),
      queue_time_(Seconds(metrics, labels_, "request_queue_time",
                          "From a request's arrival until a head has taken it",
                          kRequestTimeBuckets)),
      prompt_tokens_(
          metrics.Counter("sauva_prompt_tokens_total", "Prompt tokens taken by heads", labels_)),
      generation_tokens_(
          metrics.Counter("sauva_generation_tokens_total", "Tokens delivered to clients", labels_)),
      stopped_(metrics.Counter("sauva_request_success_total", "Samples that ended well",
                               With(labels_, "finished_reason", "stop"))),
      full_length_(metrics.Counter("sauva_request_success_total", "Samples that ended well",
                                   With(labels_, "finished_reason", "length"))),
      resumes_(metrics.Counter("sauva_resumes_total", "Streams that moved to another pipeline",
                               labels_)),
      inexact_resumes_(metrics.Counter("sauva_inexact_resumes_total",
                                       "Of these, to a pipeline of unequal numerics", labels_)) {
  for (const absl::StatusCode code : kOrdinaryCodes) Failures(code);
}

prometheus::Counter& ModelMetrics::Failures(absl::StatusCode code) {
  return metrics_.Counter("sauva_request_failures_total", "Samples that ended badly",
                          With(labels_, "reason", absl::StatusCodeToString(code)));
}

void ModelMetrics::LeftQueue(absl::Duration waited, size_t num_prompt_tokens) {
  prompt_tokens_.Increment(static_cast<double>(num_prompt_tokens));
  queue_time_.Observe(absl::ToDoubleSeconds(waited));
}

void ModelMetrics::FirstToken(absl::Duration since_start) {
  time_to_first_token_.Observe(absl::ToDoubleSeconds(since_start));
}

void ModelMetrics::NextTokens(absl::Duration since_last) {
  inter_token_latency_.Observe(absl::ToDoubleSeconds(since_last));
}

void ModelMetrics::Resumed(const StreamResumed& resumed) {
  resumes_.Increment();
  if (!resumed.exact) inexact_resumes_.Increment();
}

void ModelMetrics::Finished(const FinishSample& finish) {
  (finish.reason == FinishReason::kStop ? stopped_ : full_length_).Increment();
  e2e_latency_.Observe(absl::ToDoubleSeconds(finish.usage.total_time));
}

void ModelMetrics::Failed(const absl::Status& status) { Failures(status.code()).Increment(); }

GatewayMetrics::GatewayMetrics(Metrics& metrics)
    : metrics_(metrics),
      queued_tokens_(metrics.Gauge("sauva_queued_tokens",
                                   "Prompt and completion tokens of the samples that wait")),
      unread_bytes_(
          metrics.Gauge("sauva_unread_bytes", "Memory of responses that wait for clients to read")),
      slow_readers_(metrics.Counter("sauva_slow_readers_total",
                                    "Samples cut off since their client read too slowly")),
      spans_sent_(metrics.Counter("sauva_spans_sent_total", "Spans that the collector has taken")),
      spans_dropped_(
          metrics.Counter("sauva_spans_dropped_total", "Spans that the collector did not take")),
      ready_(metrics.Gauge("sauva_gateway_ready",
                           "1 while a pipeline is ready and this gateway takes requests")) {
  for (const absl::StatusCode code : kOrdinaryCodes) Refusals(code);
}

prometheus::Counter& GatewayMetrics::Refusals(absl::StatusCode code) {
  return metrics_.Counter("sauva_request_refusals_total", "Requests turned away before they ran",
                          {{"reason", absl::StatusCodeToString(code)}});
}

void GatewayMetrics::Refused(const absl::Status& status) { Refusals(status.code()).Increment(); }

void GatewayMetrics::Queued(const Admission& admission) {
  queued_tokens_.Set(static_cast<double>(admission.num_queued_tokens()));
}

ModelMetrics& GatewayMetrics::Of(const std::string& model_name) {
  const std::lock_guard lock(mutex_);
  const bool known = models_.contains(model_name) || models_.size() < kMaxModels;
  std::unique_ptr<ModelMetrics>& model = models_[known ? model_name : "other"];
  if (model == nullptr) {
    model = std::make_unique<ModelMetrics>(metrics_, known ? model_name : "other");
  }
  return *model;
}

}  // namespace sauva
