#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/metrics.h"
#include "gateway/admission.h"
#include "gateway/request_session.h"

namespace sauva {

// What happens to the samples of one model; names as in vLLM with our prefix.
// Thread: any.
class ModelMetrics {
 public:
  ModelMetrics(Metrics& metrics, const std::string& model_name);

  void Waiting(double change) { waiting_.Increment(change); }  // samples no head has taken
  void Running(double change) { running_.Increment(change); }

  // As the coordinator last told.
  void KvUsage(double share) { kv_usage_.Set(share); }

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
  prometheus::Counter& Failures(absl::StatusCode code);

  Metrics& metrics_;
  const MetricLabels labels_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& kv_usage_;
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

// What a gateway shows at /metrics. Counters of all codes that occur are there from the
// start, so that their first increase is seen.
// Thread: any.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(Metrics& metrics);

  // A request that was turned away before it became samples. Without the model's name,
  // which is then the client's word.
  void Refused(const absl::Status& status);
  void Queued(const Admission& admission);
  void Unread(double change) { unread_bytes_.Increment(change); }  // of responses that wait
  void SlowReader() { slow_readers_.Increment(); }                 // one that was cut off
  void SpansSent(size_t number) { spans_sent_.Increment(static_cast<double>(number)); }
  void SpansDropped(size_t number) { spans_dropped_.Increment(static_cast<double>(number)); }
  void Ready(bool ready) { ready_.Set(ready ? 1 : 0); }

  // Of a model that the cluster serves; valid as long as this object. Beyond kMaxModels all
  // further ones share the name "other", so that labels stay bounded.
  ModelMetrics& Of(const std::string& model_name);

 private:
  static constexpr size_t kMaxModels = 100;
  prometheus::Counter& Refusals(absl::StatusCode code);

  Metrics& metrics_;
  prometheus::Gauge& queued_tokens_;
  prometheus::Gauge& unread_bytes_;
  prometheus::Counter& slow_readers_;
  prometheus::Counter& spans_sent_;
  prometheus::Counter& spans_dropped_;
  prometheus::Gauge& ready_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<ModelMetrics>> models_;  // guarded by mutex_
};

}  // namespace sauva
