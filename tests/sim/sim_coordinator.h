#pragma once

#include <map>
#include <optional>

#include "coordinator/coordinator.h"
#include "tests/sim/network.h"

namespace sauva::sim {

struct DispatchCall {
  DispatchRequest request;
  absl::Time deadline;
};

// A coordinator process: a Coordinator on a node.
class SimCoordinator final : public Process {
 public:
  // What the coordinator would log goes to `note`.
  SimCoordinator(Timeline& timeline, Network& network, NodeId node, CoordinatorConfig config,
                 std::function<void(const LogNote&)> note);

  // Serves the model from the start.
  void Begin(const ModelDescription& model, int replicas);
  void Drain(const std::string& worker_id, absl::Duration timeout);

  void OnOpen(WireId wire, const Message& first) override;
  void OnMessage(WireId wire, const Message& message) override;
  void OnClosed(WireId wire, const absl::Status& status) override;

  const Coordinator& machine() const { return coordinator_; }

 private:
  void Tick();
  void Do(const CoordinatorEvent& event);

  Timeline& timeline_;
  Network& network_;
  const NodeId node_;
  const absl::Duration tick_;
  const std::function<void(const LogNote&)> note_;
  Coordinator coordinator_;
  std::set<WireId> joins_;       // a wire's number is its ConnectionId
  std::set<WireId> dispatches_;  // and its Ticket
  Ticket other_tickets_ = uint64_t{1} << 60;
};

}  // namespace sauva::sim
