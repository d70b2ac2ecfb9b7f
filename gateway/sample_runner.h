#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
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
#include "gateway/validation.h"
#include "gateway/wake_list.h"

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
    std::string traceparent;  // for the head's call; empty: none
    Handlers handlers;
  };
  // What it works with. The references must outlive the runner, and the loop be stopped
  // before it goes.
  struct Context {
    OwnerLoop loop;
    CoordinatorClient& coordinator;
    HeadClient& heads;
    Admission& admission;
    GatewayMetrics& metrics;
    absl::Duration slow_request = absl::InfiniteDuration();
  };

  SampleRunner(const Context& context, const SessionLimits& limits)
      : context_(context),
        limits_(limits),
        wakes_(*context.loop, [this](uint64_t id) { Handle(id, TimePassed{}); }) {}

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
          traceparent(std::move(in.traceparent)) {}
    int64_t num_tokens() const { return NumTokens(session.request()); }

    ModelMetrics& metrics;
    std::shared_ptr<const TokenizedModel> model;
    RequestSession session;
    std::shared_ptr<FirstDispatch> first_dispatch;
    Handlers handlers;
    absl::Time arrived;
    std::string traceparent;
    absl::Duration in_queue;
    absl::Duration longest_gap;  // between two deliveries
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
  void NoteFailure(const Sample& sample);
  void NoteIfSlow(const Sample& sample, const SampleUsage& usage);
  void LeaveQueue(Sample& sample, absl::Time now);
  void Send(Sample& sample, SampleOutput output);
  void End(uint64_t id);

  const Context context_;
  const SessionLimits limits_;
  WakeList wakes_;
  std::map<uint64_t, Sample> samples_;
  uint64_t next_id_ = 1;
};

}  // namespace sauva
