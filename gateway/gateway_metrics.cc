#include "gateway/gateway_metrics.h"

namespace sauva {
namespace {

prometheus::Histogram& Seconds(Metrics& metrics, const std::string& name, const std::string& help,
                               const std::vector<double>& buckets) {
  return metrics.Histogram("sauva_" + name + "_seconds", help, buckets);
}

}  // namespace

GatewayMetrics::GatewayMetrics(Metrics& metrics)
    : metrics_(metrics),
      running_(metrics.Gauge("sauva_num_requests_running", "Samples that a head has taken")),
      waiting_(metrics.Gauge("sauva_num_requests_waiting", "Samples that no head has taken yet")),
      queued_tokens_(metrics.Gauge("sauva_queued_tokens",
                                   "Prompt and completion tokens of the samples that wait")),
      time_to_first_token_(Seconds(metrics, "time_to_first_token",
                                   "From a request's arrival to its first token",
                                   kTimeToFirstTokenBuckets)),
      inter_token_latency_(Seconds(metrics, "inter_token_latency",
                                   "Between two tokens of one sample", kInterTokenBuckets)),
      e2e_latency_(Seconds(metrics, "e2e_request_latency", "From a request's arrival to its end",
                           kRequestTimeBuckets)),
      queue_time_(Seconds(metrics, "request_queue_time",
                          "From a request's arrival until a head has taken it",
                          kRequestTimeBuckets)),
      prompt_tokens_(metrics.Counter("sauva_prompt_tokens_total", "Prompt tokens taken by heads")),
      generation_tokens_(
          metrics.Counter("sauva_generation_tokens_total", "Tokens delivered to clients")),
      stopped_(metrics.Counter("sauva_request_success_total", "Samples that ended well",
                               {{"finished_reason", "stop"}})),
      full_length_(metrics.Counter("sauva_request_success_total", "Samples that ended well",
                                   {{"finished_reason", "length"}})),
      resumes_(metrics.Counter("sauva_resumes_total", "Streams that moved to another pipeline")),
      inexact_resumes_(metrics.Counter("sauva_inexact_resumes_total",
                                       "Of these, to a pipeline of unequal numerics")) {}

void GatewayMetrics::Refused(const absl::Status& status) {
  metrics_
      .Counter("sauva_request_refusals_total", "Requests turned away before they ran",
               {{"reason", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void GatewayMetrics::Queued(const Admission& admission) {
  queued_tokens_.Set(static_cast<double>(admission.num_queued_tokens()));
}

void GatewayMetrics::LeftQueue(absl::Duration waited, size_t num_prompt_tokens) {
  prompt_tokens_.Increment(static_cast<double>(num_prompt_tokens));
  queue_time_.Observe(absl::ToDoubleSeconds(waited));
}

void GatewayMetrics::FirstToken(absl::Duration since_start) {
  time_to_first_token_.Observe(absl::ToDoubleSeconds(since_start));
}

void GatewayMetrics::NextTokens(absl::Duration since_last) {
  inter_token_latency_.Observe(absl::ToDoubleSeconds(since_last));
}

void GatewayMetrics::Resumed(const StreamResumed& resumed) {
  resumes_.Increment();
  if (!resumed.exact) inexact_resumes_.Increment();
}

void GatewayMetrics::Finished(const FinishSample& finish) {
  (finish.reason == FinishReason::kStop ? stopped_ : full_length_).Increment();
  e2e_latency_.Observe(absl::ToDoubleSeconds(finish.usage.total_time));
}

void GatewayMetrics::Failed(const absl::Status& status) {
  metrics_
      .Counter("sauva_request_failures_total", "Samples that ended badly",
               {{"reason", absl::StatusCodeToString(status.code())}})
      .Increment();
}

}  // namespace sauva
