#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/metrics.h"
#include "gateway/admission.h"
#include "gateway/request_session.h"

namespace sauva {

// What a gateway shows at /metrics; names as in vLLM with our prefix.
// Thread: any.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(Metrics& metrics);

  // A request that was turned away before it became samples.
  void Refused(const absl::Status& status);

  void Waiting(double change) { waiting_.Increment(change); }  // samples no head has taken
  void Running(double change) { running_.Increment(change); }
  void Queued(const Admission& admission);

  void LeftQueue(absl::Duration waited, size_t num_prompt_tokens);
  void FirstToken(absl::Duration since_start);
  void NextTokens(absl::Duration since_last);
  void Delivered(size_t num_tokens) {
    generation_tokens_.Increment(static_cast<double>(num_tokens));
  }
  void Resumed(const StreamResumed& resumed);
  void Finished(const FinishSample& finish);
  void Failed(const absl::Status& status);

 private:
  Metrics& metrics_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& queued_tokens_;
  prometheus::Histogram& time_to_first_token_;
  prometheus::Histogram& inter_token_latency_;
  prometheus::Histogram& e2e_latency_;
  prometheus::Histogram& queue_time_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& stopped_;
  prometheus::Counter& full_length_;
  prometheus::Counter& resumes_;
  prometheus::Counter& inexact_resumes_;
};

}  // namespace sauva
