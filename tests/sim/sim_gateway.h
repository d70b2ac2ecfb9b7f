#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gateway/request_session.h"
#include "tests/sim/memory_engine.h"
#include "tests/sim/network.h"

namespace sauva::sim {

// One sample a client asks for, and what came of it.
struct SimRequest {
  SampleRequest sample;
  Oracle oracle;
  absl::Duration arrives;                   // after the start
  std::optional<absl::Duration> cancelled;  // so long after it arrived
  std::vector<TokenId> received;
  std::optional<absl::Status> end;  // OK: finished
  bool accepted = false;
};

// A gateway process: RequestSessions on a node. It checks each token against the oracle as
// it would be sent to the client, and never dies.
class SimGateway final : public Process {
 public:
  struct Surroundings {
    Timeline& timeline;
    Network& network;
    Random& random;
    NodeId coordinator = 0;
    std::function<std::optional<NodeId>(const std::string& address)> resolve;
    std::function<void(const std::string& violation)> fail;
  };

  SimGateway(Surroundings surroundings, NodeId node, const SessionLimits& limits);

  void Take(SimRequest& request);  // which outlives this
  int num_open() const;
  uint64_t num_resumes() const { return num_resumes_; }
  // When a client was last sent tokens or an end.
  absl::Time last_delivery() const { return last_delivery_; }

  void OnOpen(WireId, const Message&) override {}
  void OnMessage(WireId wire, const Message& message) override;
  void OnClosed(WireId wire, const absl::Status& status) override;

 private:
  struct Call {
    SimRequest* request = nullptr;
    std::unique_ptr<RequestSession> session;
    absl::Time next_wake = absl::InfiniteFuture();
    // The wires of the attempt under way.
    std::optional<WireId> dispatch;
    std::optional<WireId> head;
  };
  struct WireUse {
    Call* call = nullptr;
    uint64_t attempt = 0;
  };

  void Do(Call& call, const SessionEvent& event);
  void SetTimer(Call& call);
  void Apply(Call& call, const SendDispatch& effect);
  void Apply(Call& call, const AbandonDispatch& effect);
  void Apply(Call& call, const OpenHead& effect);
  void Apply(Call& call, const CancelHead& effect);
  void Apply(Call& call, const DeliverTokens& effect);
  void Apply(Call&, const StreamResumed&) { ++num_resumes_; }
  void Apply(Call& call, const FinishSample& effect);
  void Apply(Call& call, const FailSample& effect);
  void Fail(const Call& call, const std::string& violation);
  void CloseWire(std::optional<WireId>& wire);

  Surroundings around_;
  const NodeId node_;
  const SessionLimits limits_;
  absl::Time last_delivery_ = absl::InfinitePast();
  std::unique_ptr<Tokenizer> tokenizer_;
  std::deque<Call> calls_;
  std::map<WireId, WireUse> wires_;
  uint64_t num_resumes_ = 0;
};

}  // namespace sauva::sim
