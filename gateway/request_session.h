#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gateway/completion.h"
#include "model/tokenizer.h"
#include "proto/control.h"
#include "proto/generation.h"

namespace sauva {

// One sample of a validated request.
struct SampleRequest {
  ModelRef model;  // of the tokenizer that made the prompt
  int vocab_size = 0;
  std::string request_id;
  uint32_t sample_index = 0;
  std::vector<TokenId> prompt;   // at least one token
  std::vector<TokenId> resumed;  // what the client already has of the completion
  CompletionRules rules;         // sampling: seed set, max_tokens >= 1
  absl::Time deadline = absl::InfiniteFuture();
};

// What a sample may take of a context: its prompt and the most that may follow.
inline int64_t NumTokens(const SampleRequest& request) {
  return static_cast<int64_t>(request.prompt.size()) + request.rules.sampling.max_tokens;
}

// How patient a session is.
struct SessionLimits {
  // Since a stream broke: so long only a pipeline of equal numerics_id will do.
  absl::Duration exact_wait = absl::Seconds(2);
  // Since a stream broke: so long the pipelines it lost are refused. Longer than it takes
  // to notice a dead worker, which a lease of 2 s and a second's grace decide; afterwards one
  // that only seemed lost, or that only this gateway could not reach, will do again.
  absl::Duration forgive_wait = absl::Seconds(5);
  // A request no head has taken yet fails after so long without a pipeline.
  absl::Duration dispatch_wait = absl::Seconds(60);
  // Between attempts that bring no token: doubled from the first to the largest.
  absl::Duration first_backoff = absl::Milliseconds(10);
  absl::Duration max_backoff = absl::Seconds(1);
  int max_fruitless_attempts = 2000;  // in a row without a token
  int max_faults = 8;                 // in a row that look like a bug rather than a loss
};

// What happens to a session. `attempt` is that of the effect it answers; an event of an
// attempt the session has given up is ignored.
struct SampleStarted {};
struct DispatchReplied {
  uint64_t attempt = 0;
  DispatchReply reply;
};
struct DispatchFailed {
  uint64_t attempt = 0;
  absl::Status status;
};
struct HeadSentTokens {
  uint64_t attempt = 0;
  SequenceTokens message;
};
struct HeadEnded {
  uint64_t attempt = 0;
  absl::Status status;  // OK too, when the stream ended in order
};
struct ClientCancelled {};
struct TimePassed {};  // NextWake() has come
using SessionEvent = std::variant<SampleStarted, DispatchReplied, DispatchFailed, HeadSentTokens,
                                  HeadEnded, ClientCancelled, TimePassed>;

struct SampleUsage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;  // resumed ones included
  uint32_t cached_tokens = 0;
  uint32_t resumes = 0;
  std::optional<bool> exact_resume;  // unset: never resumed
  absl::Duration time_to_first_token = absl::ZeroDuration();
  absl::Duration total_time = absl::ZeroDuration();
};

// What a session wants done, in this order.
struct SendDispatch {  // answered by DispatchReplied or DispatchFailed
  uint64_t attempt = 0;
  DispatchRequest request;
};
struct AbandonDispatch {
  uint64_t attempt = 0;
};
struct OpenHead {  // answered by HeadSentTokens, and once by HeadEnded
  uint64_t attempt = 0;
  std::string address;
  SequenceRequest request;
};
struct CancelHead {
  uint64_t attempt = 0;
};
struct DeliverTokens {
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<TokenLogprobs> logprobs;  // one per token when asked for
};
struct StreamResumed {  // another pipeline goes on with it; for counters
  bool exact = true;
};
struct FinishSample {  // the last effect of a sample that succeeded
  FinishReason reason = FinishReason::kNone;
  std::string text;  // what was held back and follows all delivered text
  SampleUsage usage;
};
struct FailSample {  // the last effect of a sample that did not
  absl::Status status;
};
using SessionEffect = std::variant<SendDispatch, AbandonDispatch, OpenHead, CancelHead,
                                   DeliverTokens, StreamResumed, FinishSample, FailSample>;
using SessionEffects = std::vector<SessionEffect>;

// One sample of a request on its way through the cluster: asks for a pipeline, streams
// from its head, and when that stream breaks goes on at another one with the tokens it
// has, so that the client sees each token once and no seam.
//
// A stream that breaks is resumed whenever the same work can succeed elsewhere or later.
// What the head says about the request itself (INVALID_ARGUMENT, ...) ends it; a full
// queue ends it only if no head has taken it yet. What looks like a bug (INTERNAL, a gap
// in the tokens, ...) is tried again a few times only.
//
// Pure: no clock, no I/O. Thread: its owner's.
class RequestSession {
 public:
  // `tokenizer` must outlive this object.
  RequestSession(const Tokenizer& tokenizer, SampleRequest request, const SessionLimits& limits);

  // The first event is SampleStarted. After FinishSample or FailSample nothing follows.
  SessionEffects OnEvent(const SessionEvent& event, absl::Time now);

  // When TimePassed is due; InfiniteFuture when only other events matter. Changes only
  // in OnEvent.
  absl::Time NextWake() const;

  bool done() const { return phase_ == Phase::kDone; }
  // True from the first word of a head on: the request runs and will not be refused.
  bool accepted() const { return accepted_at_.has_value(); }
  std::optional<absl::Time> accepted_at() const { return accepted_at_; }
  // Of the pipeline that made the latest tokens; empty before the first.
  const std::string& numerics_id() const { return numerics_id_; }
  const Completion& completion() const { return completion_; }
  const SampleRequest& request() const { return request_; }

 private:
  // kIdle: nothing is under way; the next dispatch is due at retry_at_.
  enum class Phase { kNew, kDispatching, kStreaming, kIdle, kDone };
  // How choosy a dispatch is; later ones take more.
  enum class Choice { kEqualNumerics, kNotBroken, kAny };

  void On(const SampleStarted& event);
  void On(const DispatchReplied& event);
  void On(const DispatchFailed& event);
  void On(const HeadSentTokens& event);
  void On(const HeadEnded& event);
  void On(const ClientCancelled& event);
  void On(const TimePassed& event);

  absl::Status ReplayResumed();
  Choice ChoiceNow() const;
  void Dispatch();
  void OpenHeadAt(const DispatchReply& reply);
  void Heard(const SequenceTokens& message);
  absl::Status CheckMessage(const SequenceTokens& message) const;
  void Deliver(const SequenceTokens& message);
  void LoseHead(const absl::Status& why);
  void RetryLater(const absl::Status& why);
  void Finish();
  void Fail(absl::Status status);
  void DropAttempt();
  absl::Status OutOfTime() const;
  uint32_t MaxTokensAt(uint32_t max_context) const;
  bool IsCurrent(uint64_t attempt, Phase phase) const {
    return phase_ == phase && attempt_ == attempt;
  }

  const SampleRequest request_;
  const SessionLimits limits_;
  Completion completion_;
  Phase phase_ = Phase::kNew;
  uint64_t attempt_ = 0;
  DispatchReply pipeline_;  // of this attempt
  bool heard_ = false;      // of this attempt's head
  Choice choice_ = Choice::kAny;
  std::vector<uint64_t> broken_epochs_;
  std::string numerics_id_;
  int fruitless_attempts_ = 0;
  int faults_ = 0;
  absl::Status last_trouble_;  // of the last attempt; OK: none
  absl::Time started_at_;
  std::optional<absl::Time> accepted_at_;
  std::optional<absl::Time> first_token_at_;
  std::optional<absl::Time> lost_at_;  // while no head has spoken since a stream broke
  absl::Time retry_at_;
  SampleUsage usage_;

  // Of the OnEvent now running.
  absl::Time now_;
  SessionEffects effects_;
};

}  // namespace sauva
