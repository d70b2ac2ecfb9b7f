#include "gateway/request_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "gateway/retry_rules.h"

namespace sauva {
namespace {

// Older ones are forgotten: the coordinator will not offer them again.
constexpr size_t kMaxBrokenEpochs = 64;
// A head whose clock runs ahead of ours by so much may end a stream at its deadline.
constexpr absl::Duration kClockTolerance = absl::Seconds(1);

}  // namespace

RequestSession::RequestSession(const Tokenizer& tokenizer, SampleRequest request,
                               const SessionLimits& limits)
    : request_(std::move(request)), limits_(limits), completion_(tokenizer, request_.rules) {
  Check(!request_.prompt.empty(), "a prompt holds at least one token");
  Check(request_.rules.sampling.seed.has_value(), "a seed is drawn before a session starts");
  Check(request_.rules.sampling.max_tokens >= 1, "a session generates at least one token");
  usage_.prompt_tokens = static_cast<uint32_t>(request_.prompt.size());
}

SessionEffects RequestSession::OnEvent(const SessionEvent& event, absl::Time now) {
  now_ = now;
  if (!done()) std::visit([this](const auto& e) { On(e); }, event);
  return std::exchange(effects_, {});
}

absl::Time RequestSession::NextWake() const {
  if (done() || phase_ == Phase::kNew) return absl::InfiniteFuture();
  absl::Time wake = request_.deadline;
  if (phase_ == Phase::kStreaming) return wake;
  if (!accepted()) wake = std::min(wake, started_at_ + limits_.dispatch_wait);
  if (phase_ == Phase::kIdle) wake = std::min(wake, retry_at_);
  if (phase_ == Phase::kDispatching && choice_ == Choice::kEqualNumerics) {
    wake = std::min(wake, *lost_at_ + limits_.exact_wait);
  }
  if (phase_ == Phase::kDispatching && choice_ == Choice::kNotBroken) {
    wake = std::min(wake, *lost_at_ + limits_.forgive_wait);
  }
  return wake;
}

void RequestSession::On(const SampleStarted&) {
  Check(phase_ == Phase::kNew, "a session starts once");
  started_at_ = now_;
  if (const absl::Status status = ReplayResumed(); !status.ok()) return Fail(status);
  if (completion_.finish() != FinishReason::kNone) return Finish();
  Dispatch();
}

void RequestSession::On(const DispatchReplied& event) {
  if (!IsCurrent(event.attempt, Phase::kDispatching)) return;
  phase_ = Phase::kIdle;
  const DispatchReply& reply = event.reply;
  if (reply.model.digest != request_.model.digest) {
    return Fail(absl::AbortedError(absl::StrCat("model ", reply.model.name, " changed from digest ",
                                                request_.model.digest, " to ", reply.model.digest,
                                                " during the request; send it again")));
  }
  if (reply.head_address.empty() ||
      (choice_ == Choice::kEqualNumerics && reply.numerics_id != numerics_id_)) {
    return RetryLater(absl::InternalError(absl::StrCat("the coordinator offered epoch ",
                                                       reply.epoch, " at '", reply.head_address,
                                                       "' with numerics ", reply.numerics_id)));
  }
  OpenHeadAt(reply);
}

void RequestSession::On(const DispatchFailed& event) {
  if (!IsCurrent(event.attempt, Phase::kDispatching)) return;
  phase_ = Phase::kIdle;
  Verdict verdict = JudgeDispatch(event.status.code());
  // Nobody takes back a request that already runs: what refuses it now may be a coordinator
  // that has just restarted.
  if (accepted() && verdict == Verdict::kRefuse) verdict = Verdict::kFault;
  if (verdict == Verdict::kRefuse || (verdict == Verdict::kBusy && !accepted())) {
    return Fail(event.status);
  }
  RetryLater(verdict == Verdict::kFault ? absl::InternalError(event.status.message())
                                        : event.status);
}

void RequestSession::On(const HeadSentTokens& event) {
  if (!IsCurrent(event.attempt, Phase::kStreaming)) return;
  if (const absl::Status status = CheckMessage(event.message); !status.ok()) {
    effects_.push_back(CancelHead{attempt_});
    return LoseHead(status);
  }
  if (!heard_) Heard(event.message);
  if (!event.message.tokens.empty()) Deliver(event.message);
  if (completion_.finish() == FinishReason::kNone) completion_.End(event.message.finish);
  if (completion_.finish() == FinishReason::kNone) return;
  // Otherwise the stream ends by itself.
  if (event.message.finish != FinishReason::kNone) phase_ = Phase::kIdle;
  Finish();
}

void RequestSession::On(const HeadEnded& event) {
  if (!IsCurrent(event.attempt, Phase::kStreaming)) return;
  LoseHead(event.status);
}

void RequestSession::On(const ClientCancelled&) {
  Fail(absl::CancelledError("the client cancelled the request"));
}

void RequestSession::On(const TimePassed&) {
  if (const absl::Status status = OutOfTime(); !status.ok()) return Fail(status);
  if (phase_ == Phase::kIdle && now_ >= retry_at_) return Dispatch();
  if (phase_ == Phase::kDispatching && ChoiceNow() != choice_) {
    effects_.push_back(AbandonDispatch{attempt_});
    Dispatch();
  }
}

// Brings the completion to where the client is; it has the text already.
absl::Status RequestSession::ReplayResumed() {
  for (size_t i = 0; i < request_.resumed.size(); ++i) {
    if (completion_.finish() != FinishReason::kNone) {
      return absl::InvalidArgumentError(
          absl::StrCat("resume_tokens of sample ", request_.sample_index, " hold ",
                       request_.resumed.size(), " tokens, but the completion ends with token ", i));
    }
    completion_.Append(request_.resumed[i]);
  }
  return absl::OkStatus();
}

RequestSession::Choice RequestSession::ChoiceNow() const {
  if (!lost_at_) return Choice::kAny;
  if (!numerics_id_.empty() && now_ < *lost_at_ + limits_.exact_wait) {
    return Choice::kEqualNumerics;
  }
  return now_ < *lost_at_ + limits_.forgive_wait ? Choice::kNotBroken : Choice::kAny;
}

void RequestSession::Dispatch() {
  phase_ = Phase::kDispatching;
  choice_ = ChoiceNow();
  ++attempt_;
  if (choice_ == Choice::kAny) broken_epochs_.clear();
  effects_.push_back(SendDispatch{attempt_,
                                  {.model = request_.model.name,
                                   .request_id = request_.request_id,
                                   .num_tokens = static_cast<uint32_t>(NumTokens(request_)),
                                   .numerics_id = numerics_id_,
                                   .require_numerics = choice_ == Choice::kEqualNumerics,
                                   .broken_epochs = broken_epochs_}});
}

// A pipeline may hold less than the model's context; generation then ends where it is full.
uint32_t RequestSession::MaxTokensAt(uint32_t max_context) const {
  const auto wanted = static_cast<uint32_t>(request_.rules.sampling.max_tokens);
  const auto prompt = static_cast<uint32_t>(request_.prompt.size());
  if (max_context == 0) return wanted;
  return std::min(wanted, max_context - std::min(prompt, max_context));
}

void RequestSession::OpenHeadAt(const DispatchReply& reply) {
  const uint32_t max_tokens = MaxTokensAt(reply.max_context);
  if (max_tokens == 0) {
    return Fail(absl::InvalidArgumentError(absl::StrCat(
        "the prompt has ", request_.prompt.size(), " tokens; the pipeline's context holds ",
        reply.max_context, " with the completion")));
  }
  if (completion_.tokens().size() >= max_tokens) {
    completion_.End(FinishReason::kLength);
    return Finish();
  }
  phase_ = Phase::kStreaming;
  pipeline_ = reply;
  heard_ = false;
  SequenceRequest sequence{.epoch = reply.epoch,
                           .request_id = request_.request_id,
                           .sample_index = request_.sample_index,
                           .prompt = request_.prompt,
                           .resumed = completion_.tokens(),
                           .sampling = request_.rules.sampling,
                           .eos_tokens = request_.rules.eos_tokens};
  sequence.sampling.max_tokens = static_cast<int>(max_tokens);
  sequence.sampling.stop.clear();  // heads know no text
  effects_.push_back(OpenHead{attempt_, reply.head_address, std::move(sequence)});
}

// A head's message is input: what does not continue this completion is not delivered.
absl::Status RequestSession::CheckMessage(const SequenceTokens& message) const {
  const auto fault = [&](const auto&... parts) {
    return absl::InternalError(absl::StrCat("head ", pipeline_.head_address, ": ", parts...));
  };
  if (!heard_ && !message.numerics_id.empty() && message.numerics_id != pipeline_.numerics_id) {
    return fault("numerics ", message.numerics_id, ", dispatched for ", pipeline_.numerics_id);
  }
  if (message.tokens.empty()) return absl::OkStatus();
  if (message.first_index != completion_.tokens().size()) {
    return fault("token index ", message.first_index, " where ", completion_.tokens().size(),
                 " follows");
  }
  for (const TokenId token : message.tokens) {
    if (token < 0 || token >= request_.vocab_size) {
      return fault("token id ", token, " outside the vocabulary of ", request_.vocab_size);
    }
  }
  if (request_.rules.sampling.logprobs > 0 && message.logprobs.size() != message.tokens.size()) {
    return fault(message.logprobs.size(), " logprobs for ", message.tokens.size(), " tokens");
  }
  return absl::OkStatus();
}

// The first word of this attempt's head: it has taken the sample.
void RequestSession::Heard(const SequenceTokens& message) {
  heard_ = true;
  lost_at_.reset();
  if (!accepted()) {
    accepted_at_ = now_;
    usage_.cached_tokens = message.cached_tokens;
    return;
  }
  const bool exact = numerics_id_.empty() || numerics_id_ == pipeline_.numerics_id;
  ++usage_.resumes;
  usage_.exact_resume = usage_.exact_resume.value_or(true) && exact;
  effects_.push_back(StreamResumed{exact});
}

void RequestSession::Deliver(const SequenceTokens& message) {
  fruitless_attempts_ = 0;
  faults_ = 0;
  numerics_id_ = pipeline_.numerics_id;
  if (!first_token_at_) first_token_at_ = now_;
  DeliverTokens delivery;
  for (size_t i = 0; i < message.tokens.size(); ++i) {
    if (completion_.finish() != FinishReason::kNone) break;
    delivery.text += completion_.Append(message.tokens[i]);
    delivery.tokens.push_back(message.tokens[i]);
    if (i < message.logprobs.size()) delivery.logprobs.push_back(message.logprobs[i]);
  }
  effects_.push_back(std::move(delivery));
}

void RequestSession::LoseHead(const absl::Status& why) {
  phase_ = Phase::kIdle;
  const absl::Status named(
      why.code(), absl::StrCat("head ", pipeline_.head_address, " of epoch ", pipeline_.epoch, ": ",
                               why.ok() ? "the stream ended early" : why.message()));
  if (absl::IsDeadlineExceeded(why) && now_ + kClockTolerance >= request_.deadline) {
    return Fail(named);
  }
  const Verdict verdict = JudgeHead(why.code());
  if (verdict == Verdict::kRefuse) return Fail(why);
  if (verdict == Verdict::kBusy && !accepted()) return Fail(why);
  if (!lost_at_) lost_at_ = now_;
  if (verdict != Verdict::kBusy) {
    if (broken_epochs_.size() == kMaxBrokenEpochs) broken_epochs_.erase(broken_epochs_.begin());
    if (std::find(broken_epochs_.begin(), broken_epochs_.end(), pipeline_.epoch) ==
        broken_epochs_.end()) {
      broken_epochs_.push_back(pipeline_.epoch);
    }
  }
  RetryLater(verdict == Verdict::kFault ? absl::InternalError(named.message()) : named);
}

void RequestSession::RetryLater(const absl::Status& why) {
  last_trouble_ = why;
  ++fruitless_attempts_;
  if (absl::IsInternal(why)) ++faults_;
  if (faults_ > limits_.max_faults || fruitless_attempts_ > limits_.max_fruitless_attempts) {
    return Fail(absl::Status(why.code(), absl::StrCat(why.message(), " (given up after ",
                                                      fruitless_attempts_, " attempts)")));
  }
  if (const absl::Status status = OutOfTime(); !status.ok()) return Fail(status);
  const uint64_t entropy = *request_.rules.sampling.seed + (attempt_ << 32) + request_.sample_index;
  retry_at_ =
      now_ + PauseAfter(fruitless_attempts_,
                        {.first = limits_.first_backoff, .largest = limits_.max_backoff}, entropy);
  if (retry_at_ <= now_) Dispatch();
}

void RequestSession::Finish() {
  DropAttempt();
  usage_.completion_tokens = static_cast<uint32_t>(completion_.tokens().size());
  usage_.total_time = now_ - started_at_;
  if (first_token_at_) usage_.time_to_first_token = *first_token_at_ - started_at_;
  effects_.push_back(FinishSample{completion_.finish(), completion_.Flush(), usage_});
}

void RequestSession::Fail(absl::Status status) {
  DropAttempt();
  effects_.push_back(FailSample{std::move(status)});
}

// Gives up whatever the session waits for and ends it.
void RequestSession::DropAttempt() {
  if (phase_ == Phase::kDispatching) effects_.push_back(AbandonDispatch{attempt_});
  if (phase_ == Phase::kStreaming) effects_.push_back(CancelHead{attempt_});
  phase_ = Phase::kDone;
}

absl::Status RequestSession::OutOfTime() const {
  const std::string trouble =
      last_trouble_.ok() ? "" : absl::StrCat("; last: ", last_trouble_.message());
  if (now_ >= request_.deadline) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the deadline passed after ", completion_.tokens().size(), " tokens", trouble));
  }
  if (!accepted() && phase_ != Phase::kStreaming && now_ >= started_at_ + limits_.dispatch_wait) {
    return absl::UnavailableError(
        absl::StrCat("no pipeline took a request for model ", request_.model.name, " within ",
                     absl::FormatDuration(limits_.dispatch_wait), trouble));
  }
  return absl::OkStatus();
}

}  // namespace sauva
