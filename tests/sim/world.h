#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/sim_coordinator.h"
#include "tests/sim/sim_gateway.h"
#include "tests/sim/sim_worker.h"

namespace sauva::sim {

// What one seed decides before time begins.
struct Scenario {
  uint64_t seed = 0;
  int num_workers = 1;
  int replicas = 1;
  int stages = 0;
  int spares = 0;
  uint64_t worker_memory_bytes = 0;
  uint32_t max_kv_blocks = 0;
  int max_step_tokens = 0;
  int max_sequences = 0;
  int num_requests = 0;
  int num_faults = 0;
};
Scenario ScenarioOf(uint64_t seed);

// How often what happened in a run; a simulation that never gets to the interesting places
// proves nothing.
struct Happenings {
  std::map<std::string, uint64_t> counts;
  absl::Duration longest_wait;  // from the last fault to the last request's end
  void operator+=(const Happenings& other) {
    for (const auto& [what, count] : other.counts) counts[what] += count;
    longest_wait = std::max(longest_wait, other.longest_wait);
  }
};

// A cluster of real state machines over a network that misbehaves, for one seed.
class World {
 public:
  // kOn: what happens is told on standard output.
  enum class Trace { kOff, kOn };
  explicit World(const Scenario& scenario, Trace trace = Trace::kOff);
  ~World();

  // Runs until every request has ended and the cluster is at rest.
  // Returns what went wrong; empty: nothing.
  std::vector<std::string> Run();

  const Happenings& happenings() const { return happenings_; }

 private:
  struct WorkerNode {
    NodeId node = 0;
    std::unique_ptr<SimWorker> process;
    int starts = 0;
    std::string address;
    bool leaving = false;  // drained processes are not started again at once
  };

  void Fail(const std::string& violation);
  void PlanRequests();
  void PlanFaults();
  void DoFault();
  void Fault(const std::string& what, size_t worker);
  void StartCoordinator();
  void KillCoordinator();
  void StartWorker(size_t index);
  void KillWorker(size_t index);
  bool NcclConnects(NodeId a, NodeId b);
  std::string WhatIsOpen() const;
  void EndWorker(size_t index);
  void DrainWorker(size_t index);
  absl::Duration Outage();
  std::optional<NodeId> Resolve(const std::string& address) const;
  SimWorkerOptions OptionsFor(const WorkerNode& worker, size_t index);
  bool AllRequestsEnded() const;
  void RunUntilEnded();
  void CheckRest();
  void Tell(const std::string& what) const;
  void Tell(const LogNote& note) const;
  double Seconds() const { return absl::ToDoubleSeconds(timeline_.now() - began_); }
  void Count(const std::string& what, uint64_t by = 1) { happenings_.counts[what] += by; }

  const Scenario scenario_;
  const Trace trace_;
  Random random_;
  Timeline timeline_;
  Network network_;
  NodeId coordinator_node_ = 0;
  std::unique_ptr<SimCoordinator> coordinator_;
  absl::Duration clock_error_ = absl::ZeroDuration();  // of the coordinator's wall clock
  NodeId gateway_node_ = 0;
  std::unique_ptr<SimGateway> gateway_;
  std::deque<WorkerNode> workers_;
  std::deque<SimRequest> requests_;
  absl::Time began_;
  absl::Time faults_end_;
  std::vector<std::string> violations_;
  Happenings happenings_;
};

}  // namespace sauva::sim
