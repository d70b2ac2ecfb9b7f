#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gateway/request_session.h"
#include "tests/gateway/word_tokenizer.h"

namespace sauva::testing {

inline SampleRequest PlainRequest() {
  SampleRequest request;
  request.model = {.name = "prose", .digest = "d1"};
  request.vocab_size = 1000;
  request.request_id = "r1";
  request.prompt = Bytes("Once");
  request.rules.sampling.seed = 7;
  request.rules.sampling.max_tokens = 100;
  request.rules.eos_tokens = {WordTokenizer::kEnd};
  return request;
}

// Tells a session what happens to it and keeps what it wants done, so that a test reads as
// the story of one sample.
class SessionStory {
 public:
  explicit SessionStory(SampleRequest request = PlainRequest(), SessionLimits limits = {},
                        WordTokenizer tokenizer = WordTokenizer())
      : tokenizer_(std::move(tokenizer)), session_(tokenizer_, std::move(request), limits) {}

  void Start() { Happen(SampleStarted{}); }
  void Dispatched(uint64_t epoch, const std::string& numerics = "n1", uint32_t max_context = 4096) {
    Happen(DispatchReplied{attempt(),
                           {.model = {"prose", "d1"},
                            .epoch = epoch,
                            .head_address = "head-" + std::to_string(epoch),
                            .numerics_id = numerics,
                            .max_context = max_context}});
  }
  void DispatchFails(const absl::Status& status) { Happen(DispatchFailed{attempt(), status}); }
  void Hello(const std::string& numerics = "n1", uint32_t cached = 0) {
    SequenceTokens message;
    message.numerics_id = numerics;
    message.cached_tokens = cached;
    Happen(HeadSentTokens{attempt(), message});
  }
  void Tokens(std::vector<TokenId> ids, FinishReason finish = FinishReason::kNone) {
    TokensAt(static_cast<uint32_t>(session_.completion().tokens().size()), std::move(ids), finish);
  }
  void TokensAt(uint32_t first_index, std::vector<TokenId> ids,
                FinishReason finish = FinishReason::kNone) {
    SequenceTokens message;
    message.first_index = first_index;
    message.tokens = std::move(ids);
    message.finish = finish;
    Happen(HeadSentTokens{attempt(), message});
  }
  void HeadEnds(const absl::Status& status) { Happen(HeadEnded{attempt(), status}); }
  void Cancel() { Happen(ClientCancelled{}); }
  void Happen(const SessionEvent& event) {
    effects = session_.OnEvent(event, now);
    for (const SessionEffect& effect : effects) Note(effect);
  }
  // Lets time pass up to the session's next wish to be woken, or not at all.
  void WaitForWake() {
    ASSERT_LT(session_.NextWake(), absl::InfiniteFuture());
    now = std::max(now, session_.NextWake());
    Happen(TimePassed{});
  }
  // Waits until the session dispatches again.
  void WaitForDispatch() {
    const size_t before = dispatches.size();
    for (int i = 0; i < 10 && dispatches.size() == before && !session_.done(); ++i) WaitForWake();
    ASSERT_EQ(dispatches.size(), before + 1);
  }
  // From the start to a head that has taken the sample.
  void Run(uint64_t epoch = 1) {
    Start();
    Dispatched(epoch);
    Hello();
  }

  uint64_t attempt() const { return attempt_; }
  const RequestSession& session() const { return session_; }
  template <class Effect>
  bool Did() const {
    for (const SessionEffect& effect : effects) {
      if (std::holds_alternative<Effect>(effect)) return true;
    }
    return false;
  }

  absl::Time now = absl::FromUnixSeconds(1'000'000);
  SessionEffects effects;  // of the latest event
  std::vector<DispatchRequest> dispatches;
  std::vector<OpenHead> opened;
  std::vector<TokenId> tokens;  // delivered
  std::string text;             // delivered, the finish's included
  std::optional<FinishSample> finished;
  std::optional<absl::Status> failed;
  int cancelled_heads = 0;
  int resumes = 0;

 private:
  void Note(const SessionEffect& effect) {
    ASSERT_FALSE(finished || failed) << "nothing follows the end of a sample";
    if (const auto* dispatch = std::get_if<SendDispatch>(&effect)) {
      attempt_ = dispatch->attempt;
      dispatches.push_back(dispatch->request);
    } else if (const auto* open = std::get_if<OpenHead>(&effect)) {
      opened.push_back(*open);
    } else if (const auto* delivery = std::get_if<DeliverTokens>(&effect)) {
      tokens.insert(tokens.end(), delivery->tokens.begin(), delivery->tokens.end());
      text += delivery->text;
    } else if (const auto* finish = std::get_if<FinishSample>(&effect)) {
      finished = *finish;
      text += finish->text;
    } else if (const auto* failure = std::get_if<FailSample>(&effect)) {
      failed = failure->status;
    } else if (std::holds_alternative<CancelHead>(effect)) {
      ++cancelled_heads;
    } else if (std::holds_alternative<StreamResumed>(effect)) {
      ++resumes;
    }
  }

  WordTokenizer tokenizer_;
  RequestSession session_;
  uint64_t attempt_ = 0;
};

}  // namespace sauva::testing
