#include "tests/sim/sim_gateway.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/sim_coordinator.h"

namespace sauva::sim {
namespace {

// How long one Dispatch call may wait; the session asks again.
constexpr absl::Duration kDispatchDeadline = absl::Seconds(5);

// Texts play no part here: every token is one letter.
class LetterTokenizer final : public Tokenizer {
 public:
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view, Special) const override {
    return absl::UnimplementedError("prompts are tokens");
  }
  std::string PieceBytes(int32_t token) const override {
    return std::string(1, static_cast<char>('a' + token % 26));
  }
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>&) const override {
    return absl::UnimplementedError("completions are tokens");
  }
  bool DropsLeadingSpace() const override { return false; }
  int vocab_size() const override { return kVocabSize; }
};

}  // namespace

SimGateway::SimGateway(Surroundings surroundings, NodeId node, const SessionLimits& limits)
    : around_(std::move(surroundings)),
      node_(node),
      limits_(limits),
      tokenizer_(std::make_unique<LetterTokenizer>()) {}

int SimGateway::num_open() const {
  return static_cast<int>(
      std::ranges::count_if(calls_, [](const Call& call) { return !call.request->end; }));
}

void SimGateway::Take(SimRequest& request) {
  Call& call = calls_.emplace_back();
  call.request = &request;
  call.session = std::make_unique<RequestSession>(*tokenizer_, request.sample, limits_);
  Do(call, SampleStarted{});
  if (request.cancelled) {
    around_.network.Local(node_, *request.cancelled, [this, &call] {
      if (!call.request->end) Do(call, ClientCancelled{});
    });
  }
}

void SimGateway::Do(Call& call, const SessionEvent& event) {
  for (const SessionEffect& effect : call.session->OnEvent(event, around_.timeline.now())) {
    std::visit([&](const auto& e) { Apply(call, e); }, effect);
  }
  call.request->accepted = call.session->accepted();
  SetTimer(call);
}

void SimGateway::SetTimer(Call& call) {
  const absl::Time wake = call.session->NextWake();
  if (wake >= call.next_wake) return;
  call.next_wake = wake;
  const absl::Duration wait = std::max(absl::ZeroDuration(), wake - around_.timeline.now());
  around_.network.Local(node_, wait, [this, &call, wake] {
    if (call.next_wake != wake) return;
    call.next_wake = absl::InfiniteFuture();
    Do(call, TimePassed{});
  });
}

void SimGateway::OnMessage(WireId wire, const Message& message) {
  const auto found = wires_.find(wire);
  if (found == wires_.end()) return;  // given up
  const auto [call, attempt] = found->second;
  if (const auto* reply = std::any_cast<DispatchReply>(&message)) {
    CloseWire(call->dispatch);
    return Do(*call, DispatchReplied{attempt, *reply});
  }
  Do(*call, HeadSentTokens{attempt, std::any_cast<const SequenceTokens&>(message)});
}

void SimGateway::OnClosed(WireId wire, const absl::Status& status) {
  const auto found = wires_.find(wire);
  if (found == wires_.end()) return;
  const auto [call, attempt] = found->second;
  wires_.erase(found);
  if (call->dispatch == wire) {
    call->dispatch.reset();
    return Do(*call, DispatchFailed{attempt, status});
  }
  call->head.reset();
  Do(*call, HeadEnded{attempt, status});
}

void SimGateway::CloseWire(std::optional<WireId>& wire) {
  if (!wire) return;
  wires_.erase(*wire);
  around_.network.Close(node_, *wire, absl::CancelledError("given up"));
  wire.reset();
}

void SimGateway::Apply(Call& call, const SendDispatch& effect) {
  CloseWire(call.dispatch);
  const DispatchCall message{effect.request, std::min(around_.timeline.now() + kDispatchDeadline,
                                                      call.request->sample.deadline)};
  // A retry below the session: the first copy's answer goes nowhere.
  if (around_.random.Chance(5)) around_.network.Open(node_, around_.coordinator, message);
  call.dispatch = around_.network.Open(node_, around_.coordinator, message);
  wires_[*call.dispatch] = {&call, effect.attempt};
}

void SimGateway::Apply(Call& call, const AbandonDispatch&) { CloseWire(call.dispatch); }

void SimGateway::Apply(Call& call, const OpenHead& effect) {
  const std::optional<NodeId> head = around_.resolve(effect.address);
  if (!head) {
    around_.network.Local(node_, absl::Milliseconds(1), [this, &call, attempt = effect.attempt] {
      Do(call, HeadEnded{attempt, absl::UnavailableError("connection refused")});
    });
    return;
  }
  call.head = around_.network.Open(node_, *head, effect.request);
  wires_[*call.head] = {&call, effect.attempt};
}

void SimGateway::Apply(Call& call, const CancelHead&) { CloseWire(call.head); }

void SimGateway::Apply(Call& call, const DeliverTokens& effect) {
  last_delivery_ = around_.timeline.now();
  SimRequest& request = *call.request;
  if (request.end) return Fail(call, "tokens after the end");
  for (const TokenId token : effect.tokens) {
    const size_t index = request.received.size();
    if (index >= request.oracle.tokens.size() || request.oracle.tokens[index] != token) {
      return Fail(call, absl::StrCat("token ", index, " is ", token, ", not the oracle's"));
    }
    request.received.push_back(token);
  }
}

void SimGateway::Apply(Call& call, const FinishSample& effect) {
  last_delivery_ = around_.timeline.now();
  SimRequest& request = *call.request;
  if (request.end) return Fail(call, "a second end");
  request.end = absl::OkStatus();
  if (request.received != request.oracle.tokens) {
    Fail(call, absl::StrCat("finished after ", request.received.size(), " of ",
                            request.oracle.tokens.size(), " tokens"));
  }
  if (effect.reason != request.oracle.finish) Fail(call, "finished for another reason");
}

void SimGateway::Apply(Call& call, const FailSample& effect) {
  last_delivery_ = around_.timeline.now();
  SimRequest& request = *call.request;
  if (request.end) return Fail(call, "a second end");
  request.end = effect.status;
  const bool cancelled = absl::IsCancelled(effect.status) && request.cancelled;
  const bool late = absl::IsDeadlineExceeded(effect.status) &&
                    around_.timeline.now() + absl::Seconds(1) >= request.sample.deadline;
  // Before a head has taken it a request may be turned away; afterwards it is kept.
  const bool turned_away = !call.session->accepted() && (absl::IsUnavailable(effect.status) ||
                                                         absl::IsResourceExhausted(effect.status));
  if (!cancelled && !late && !turned_away) {
    Fail(call, absl::StrCat("an accepted request failed: ", effect.status.ToString()));
  }
}

void SimGateway::Fail(const Call& call, const std::string& violation) {
  around_.fail(absl::StrCat("request ", call.request->sample.request_id, ": ", violation));
}

}  // namespace sauva::sim
