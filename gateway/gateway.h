#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "gateway/admission.h"
#include "gateway/coordinator_client.h"
#include "gateway/gateway_metrics.h"
#include "gateway/generate_input.h"
#include "gateway/head_client.h"
#include "gateway/model_cache.h"
#include "gateway/post_event.h"
#include "gateway/sample_runner.h"
#include "gateway/validation.h"
#include "gateway/wake_list.h"

namespace sauva {

struct GatewayOptions {
  SessionLimits session;
  AdmissionLimits admission;
  ModelCache::Options models;
  absl::Duration request_timeout = absl::Minutes(10);  // of a request without a deadline
  // A sample that takes longer from its arrival to its end is logged with its timeline.
  absl::Duration slow_request = absl::InfiniteDuration();
  size_t inline_text_bytes = 16 << 10;  // longer prompts are tokenized beside the loop
};

// The requests of one gateway, without gRPC: takes them, waits for their model, turns text
// into tokens, splits them into samples and tells the caller how each goes on.
// Thread: public methods from any; the state belongs to the loop.
class Gateway {
 public:
  // What it works with. The references must outlive it; both loops be stopped before it goes.
  struct Context {
    OwnerLoop loop;
    EventLoop& text_loop;  // tokenizes long prompts and builds tokenizers
    CoordinatorClient& coordinator;
    HeadClient& heads;
    GatewayMetrics& metrics;
    SampleRunner::OnSpans on_spans;  // null: no spans are made
  };
  // on_health: on the loop, when readiness to serve changes.
  enum class Health { kServing, kNotServing };
  Gateway(const Context& context, const GatewayOptions& options,
          std::function<void(Health)> on_health);

  // Begins to ask the coordinator for models.
  void Start();

  struct CallHandlers {
    std::function<bool(SampleOutput)> on_output;       // false: the client reads too slowly
    std::function<void(const absl::Status&)> on_done;  // once, last
  };
  // Runs a request; handlers run on the loop, or here when it is refused at once. Returns
  // its name for Cancel. `deadline` may be infinite: then request_timeout counts.
  // Errors of on_done: those of GenerationService.Generate.
  uint64_t Generate(GenerateInput input, absl::Time deadline, CallHandlers handlers);

  // The client has left. Nothing happens when the request has ended.
  void Cancel(uint64_t call_id);

  struct Tokens {
    std::vector<TokenId> ids;
    std::vector<std::string> pieces;
  };
  struct TokenizeInput {
    std::string model;
    std::string text;
    Tokenizer::Special special = Tokenizer::Special::kAdd;
  };
  void Tokenize(TokenizeInput input, std::function<void(absl::StatusOr<Tokens>)> on_done);

  // Takes no further requests; those that run may end until `deadline`, then they fail with
  // UNAVAILABLE. on_empty runs on the loop when all have ended and is told how many failed
  // that way. Once.
  void Drain(absl::Time deadline, std::function<void(int num_cut)> on_empty);

 private:
  struct Call {
    ValidRequest request;
    absl::Time deadline;
    absl::Time arrived;
    CallHandlers handlers;
    std::string request_id;
    std::vector<uint64_t> samples;  // that have not ended
    int64_t num_entered = 0;        // samples counted by the admission
    bool waits_for_model = false;
  };

  void Accept(uint64_t call_id, Call call);
  void TryBegin(uint64_t call_id);
  void Bind(uint64_t call_id, std::shared_ptr<const TokenizedModel> model);
  void BeginSamples(uint64_t call_id, const std::shared_ptr<const TokenizedModel>& model,
                    absl::StatusOr<std::vector<SampleRequest>> samples);
  void OnSampleEnded(uint64_t call_id, uint64_t sample_id, const absl::Status& status);
  void OnWaitOver(uint64_t call_id);
  void OnModelsChanged();
  void Refuse(uint64_t call_id, const absl::Status& status);
  void End(uint64_t call_id, const absl::Status& status);

  const Context context_;
  const GatewayOptions options_;
  const std::function<void(Health)> on_health_;
  std::atomic<uint64_t> next_call_id_ = 1;
  Admission admission_;
  ModelCache models_;
  SampleRunner runner_;
  WakeList model_waits_;
  std::map<uint64_t, Call> calls_;
  std::mt19937_64 random_;
  Health health_ = Health::kNotServing;
  bool draining_ = false;
  std::function<void(int)> on_empty_;
  int num_cut_ = 0;  // calls ended by the drain's deadline
};

}  // namespace sauva
