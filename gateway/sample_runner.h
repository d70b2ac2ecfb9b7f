#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "gateway/admission.h"
#include "gateway/coordinator_client.h"
#include "gateway/gateway_metrics.h"
#include "gateway/head_client.h"
#include "gateway/post_event.h"
#include "gateway/request_session.h"
#include "gateway/sample_output.h"
#include "gateway/sample_timeline.h"
#include "gateway/seeded_random.h"
#include "gateway/span.h"
#include "gateway/validation.h"
#include "gateway/wake_list.h"
#include "net/traceparent.h"

namespace sauva {

// The first dispatch of a request, which its samples share: they go to one pipeline, where
// the prompt is computed once. All of them begin in one turn of the loop.
// Shared: by the samples of one request.
struct FirstDispatch {
  std::vector<std::pair<uint64_t, uint64_t>> waiting;  // sample id, attempt
  std::shared_ptr<PendingCall> call;
};

// Runs request sessions: tells them what happens and does what they want.
// Thread: the loop's.
class SampleRunner {
 public:
  struct Handlers {
    // Returns false when the client reads so slowly that no more can wait for it.
    std::function<bool(SampleOutput)> on_output;
    // Once, last; OK when the last output told how the sample finished.
    std::function<void(uint64_t id, const absl::Status&)> on_ended;
  };
  struct NewSample {
    SampleRequest request;
    std::shared_ptr<const TokenizedModel> model;  // shared with the cache and other samples
    std::shared_ptr<FirstDispatch> first_dispatch;
    absl::Time arrived;
    std::optional<TraceContext> trace;  // the caller's
    std::string operation;              // as in SampleRecord
    Handlers handlers;
  };
  // Takes the spans of a sample that has ended. On the loop; must not wait.
  using OnSpans = std::function<void(std::vector<Span>)>;
  // What it works with. The references must outlive the runner, and the loop be stopped
  // before it goes.
  struct Context {
    OwnerLoop loop;
    CoordinatorClient& coordinator;
    HeadClient& heads;
    Admission& admission;
    GatewayMetrics& metrics;
    absl::Duration slow_request = absl::InfiniteDuration();
    OnSpans on_spans = nullptr;  // null: no spans are made
  };

  SampleRunner(const Context& context, const SessionLimits& limits)
      : context_(context),
        limits_(limits),
        wakes_(*context.loop, [this](uint64_t id) { Handle(id, TimePassed{}); }),
        random_(SeededByTheSystem()) {}

  // Takes a sample whose tokens wait in the admission, and returns its name. Nothing is
  // reported before Begin.
  uint64_t Add(NewSample sample);
  void Begin(uint64_t id) { Handle(id, SampleStarted{}); }

  // Ends a sample; it reports CANCELLED. Nothing happens when it has ended.
  void Cancel(uint64_t id) { Handle(id, ClientCancelled{}); }

 private:
  struct Sample {
    Sample(NewSample in, const SessionLimits& limits, ModelMetrics& metrics_in)
        : metrics(metrics_in),
          model(std::move(in.model)),
          session(*model->tokenizer, std::move(in.request), limits),
          first_dispatch(std::move(in.first_dispatch)),
          handlers(std::move(in.handlers)),
          arrived(in.arrived),
          caller(std::move(in.trace)),
          operation(std::move(in.operation)) {}
    int64_t num_tokens() const { return NumTokens(session.request()); }

    ModelMetrics& metrics;
    std::shared_ptr<const TokenizedModel> model;
    RequestSession session;
    std::shared_ptr<FirstDispatch> first_dispatch;
    Handlers handlers;
    absl::Time arrived;
    std::optional<TraceContext> caller;
    TraceContext trace;  // the sample's own; a trace of its own without a caller's
    std::string operation;
    SampleTimeline timeline;
    absl::Time left_queue = absl::InfiniteFuture();
    absl::Time first_token_at = absl::InfiniteFuture();
    absl::Duration longest_gap;  // between two deliveries
    SampleUsage usage;           // once it has finished
    FinishReason finish = FinishReason::kNone;
    std::shared_ptr<PendingCall> dispatch;
    std::shared_ptr<PendingCall> head;
    absl::Time last_tokens_at = absl::InfinitePast();
    bool queued = true;       // no head has taken it
    bool introduced = false;  // its header was sent
    bool reader_stuck = false;
    std::optional<absl::Status> ended;
  };

  void Handle(uint64_t id, const SessionEvent& event);
  void Do(uint64_t id, Sample& sample, SendDispatch& effect);
  void Do(uint64_t id, Sample& sample, AbandonDispatch& effect);
  void Do(uint64_t id, Sample& sample, OpenHead& effect);
  void Do(uint64_t id, Sample& sample, CancelHead& effect);
  void Do(uint64_t id, Sample& sample, DeliverTokens& effect);
  void Do(uint64_t id, Sample& sample, StreamResumed& effect);
  void Do(uint64_t id, Sample& sample, FinishSample& effect);
  void Do(uint64_t id, Sample& sample, FailSample& effect);
  void DispatchTogether(uint64_t id, Sample& sample, const SendDispatch& effect);
  void OnFirstDispatch(FirstDispatch& first, const absl::StatusOr<DispatchReply>& answer);
  void OnDispatch(uint64_t id, uint64_t attempt, const absl::StatusOr<DispatchReply>& answer);
  uint64_t NewSpanId() { return random_() >> 1 | 1; }
  // The context that a call on behalf of the sample passes on; empty without a caller's.
  std::string TraceparentOf(const Sample& sample, uint64_t span_id) const;
  void NoteFailure(const Sample& sample);
  void NoteIfSlow(const Sample& sample);
  void ReportSpans(const Sample& sample);
  void LeaveQueue(Sample& sample, absl::Time now);
  void Send(Sample& sample, SampleOutput output);
  void End(uint64_t id);

  const Context context_;
  const SessionLimits limits_;
  WakeList wakes_;
  std::map<uint64_t, Sample> samples_;
  uint64_t next_id_ = 1;
  std::mt19937_64 random_;
};

}  // namespace sauva
