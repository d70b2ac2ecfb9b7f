#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/worker/fake_engine.h"
#include "worker/worker_session.h"

// Worker sessions joined by queues in the place of network, engine and coordinator. Each
// message is one event in one queue: a test decides when time passes and who dies.
namespace sauva {

struct FakeStream {
  std::vector<TokenId> tokens;
  int num_messages = 0;
  std::string numerics_id;
  FinishReason finish = FinishReason::kNone;
  std::optional<absl::Status> end;
};

class FakeCluster {
 public:
  explicit FakeCluster(int num_workers, const WorkerOptions& options = {});

  // A pipeline over these workers, in this order.
  StageAssignment Assignment(uint64_t epoch, const std::vector<int>& workers) const;
  void Assign(const StageAssignment& assignment);
  // Loads, waits until all have, starts, and runs until nothing moves.
  void StartPipeline(uint64_t epoch, const std::vector<int>& workers);

  StreamId Generate(int worker, SequenceRequest request);
  void Send(int worker, WorkerEvent event);

  // Delivers what is queued until nothing is, or `done` holds.
  void Run(const std::function<bool()>& done = nullptr);
  // Lets time pass, with every tick that is due on the way.
  void Wait(absl::Duration duration);

  // The worker's process is gone; its peers notice.
  void Kill(int worker);
  // The worker's process does nothing any more; nobody notices yet.
  void Freeze(int worker) { node(worker).frozen = true; }

  WorkerSession& session(int worker) { return node(worker).session; }
  FakeEngine& engine(int worker) { return node(worker).engine; }
  FakeStream& stream(StreamId id) { return streams_[id]; }
  std::vector<StageReport>& reports(int worker) { return node(worker).reports; }
  std::vector<StageBroken>& broken(int worker) { return node(worker).broken; }
  std::vector<Heartbeat>& heartbeats(int worker) { return node(worker).heartbeats; }
  std::vector<absl::Status>& refused(int worker) { return node(worker).refused; }
  int num_loads(int worker) { return node(worker).num_loads; }
  int num_calls(int worker) { return node(worker).num_calls; }
  bool drained(int worker) { return node(worker).drained; }

  static std::string Name(int worker) { return absl::StrCat("worker-", worker); }

 private:
  struct Node {
    explicit Node(const WorkerOptions& options) : session(options) {}
    WorkerSession session;
    FakeEngine engine;
    bool frozen = false;
    bool dead = false;
    bool drained = false;
    int num_loads = 0;
    int num_calls = 0;  // streams opened to others
    std::vector<StageReport> reports;
    std::vector<StageBroken> broken;
    std::vector<Heartbeat> heartbeats;
    std::vector<absl::Status> refused;  // how others ended our streams before accepting
  };
  // One Control or Link stream between two workers.
  struct Wire {
    int from = 0;
    OutgoingId outgoing = 0;
    int to = 0;
    bool open = true;
  };
  struct Queued {
    int worker = 0;
    WorkerEvent event;
  };

  Node& node(int worker) { return nodes_[static_cast<size_t>(worker)]; }
  int WorkerAt(const std::string& address) const;
  IncomingId WireOf(int from, OutgoingId id) const;
  void Deliver(Queued queued);
  void Apply(int worker, WorkerEffect& effect);
  void Open(int worker, const OpenOutgoing& open);
  void End(IncomingId id, const absl::Status& status);
  void Record(const StreamTokens& message);

  std::deque<Node> nodes_;
  std::map<IncomingId, Wire> wires_;
  std::map<StreamId, FakeStream> streams_;
  std::deque<Queued> queue_;
  IncomingId last_wire_ = 0;
  StreamId last_stream_ = 0;
  absl::Time now_ = absl::UnixEpoch();
};

// A request of `num_tokens` greedy tokens.
SequenceRequest FakeRequest(uint64_t epoch, std::vector<TokenId> prompt, int num_tokens);

}  // namespace sauva
