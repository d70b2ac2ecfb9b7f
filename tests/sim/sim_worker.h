#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "tests/sim/memory_engine.h"
#include "tests/sim/network.h"
#include "worker/worker_session.h"

namespace sauva::sim {

struct PeerOpen {
  PeerKind kind = PeerKind::kControl;
  StageHello hello;
  LinkKind link = LinkKind::kGrpc;
};

struct SimWorkerOptions {
  std::string worker_id;
  std::string address;
  uint64_t memory_bytes = 0;
  uint32_t max_kv_blocks = 0;
  absl::Duration load_time;
  absl::Duration step_time;
  int load_failure_percent = 0;
  int max_unread_messages = 8;  // of a stream, as its transport would hold
  WorkerOptions session;
};

// A worker process: a WorkerSession with an engine that remembers, on a node.
class SimWorker final : public Process {
 public:
  // Where processes are found, and whom to tell that this one has drained.
  struct Surroundings {
    Timeline& timeline;
    Network& network;
    Random& random;
    NodeId coordinator = 0;
    std::function<std::optional<NodeId>(const std::string& address)> resolve;
    // Whether NCCL can connect two nodes.
    std::function<bool(NodeId, NodeId)> nccl_connects;
    std::function<void()> drained;
  };

  SimWorker(Surroundings surroundings, NodeId node, SimWorkerOptions options);

  void Begin() { Connect(); }
  // Opens a second Join stream while the first one lives, as a reconnecting client might.
  void JoinAgain() { Connect(); }
  void ShutDown() { Do(ShutDownWorker{}); }

  void OnOpen(WireId wire, const Message& first) override;
  void OnMessage(WireId wire, const Message& message) override;
  void OnClosed(WireId wire, const absl::Status& status) override;

  const WorkerSession& session() const { return session_; }
  const MemoryEngine& engine() const { return engine_; }
  const SimWorkerOptions& options() const { return options_; }

 private:
  void Connect();
  void Do(WorkerEvent event);
  void SetTimer();
  void ToEngine(absl::Duration time, std::function<void()> job);

  void Apply(LoadLayers& effect);
  void Apply(AllocateKv& effect);
  void Apply(OpenSequence& effect);
  void Apply(CloseSequence& effect);
  void Apply(ComputeStep& effect);
  void Apply(StageReport& effect) { Say(std::move(effect)); }
  void Apply(StageBroken& effect) { Say(std::move(effect)); }
  void Apply(Heartbeat& effect) { Say(std::move(effect)); }
  void Apply(OpenOutgoing& effect);
  void Apply(CloseOutgoing& effect);
  void Apply(SendOutgoing& effect);
  void Apply(AcceptIncoming& effect);
  void Apply(EndIncoming& effect);
  void Apply(SendIncoming& effect);
  void Apply(StreamTokens& effect);
  void Apply(EndStream& effect);
  void Apply(WorkerDrained&) { around_.drained(); }
  void Say(Message message);
  void LoseNccl(const StageHello& hello);

  Surroundings around_;
  const NodeId node_;
  const SimWorkerOptions options_;
  WorkerSession session_;
  MemoryEngine engine_;
  absl::Time engine_free_at_ = absl::InfinitePast();
  StageAssignment loaded_;
  absl::Time next_tick_ = absl::InfiniteFuture();

  std::optional<WireId> join_;
  absl::Duration join_backoff_ = absl::Milliseconds(50);
  std::map<OutgoingId, WireId> outgoing_;
  std::map<WireId, OutgoingId> outgoing_of_;
  std::set<WireId> incoming_;    // Control and Link
  std::set<WireId> by_nccl_;     // of them
  std::set<WireId> unjoinable_;  // Links of this side that NCCL does not connect
  std::set<WireId> streams_;     // Generate; a wire's number is its StreamId
  std::set<WireId> stalled_;
};

}  // namespace sauva::sim
