#include "tests/sim/sim_coordinator.h"

#include <utility>

namespace sauva::sim {

SimCoordinator::SimCoordinator(Timeline& timeline, Network& network, NodeId node,
                               CoordinatorConfig config, std::function<void(const LogNote&)> note)
    : timeline_(timeline),
      network_(network),
      node_(node),
      tick_(config.tick),
      note_(std::move(note)),
      coordinator_(std::move(config)) {}

void SimCoordinator::Begin(const ModelDescription& model, int replicas) {
  Do(LoadAsked{.ticket = ++other_tickets_, .model = model, .replicas = replicas});
  Tick();
}

void SimCoordinator::Drain(const std::string& worker_id, absl::Duration timeout) {
  Do(DrainAsked{.ticket = ++other_tickets_, .worker_id = worker_id, .timeout = timeout});
}

void SimCoordinator::Tick() {
  Do(CoordinatorTick{});
  network_.Local(node_, tick_, [this] { Tick(); });
}

void SimCoordinator::OnOpen(WireId wire, const Message& first) {
  if (const auto* hello = std::any_cast<WorkerHello>(&first)) {
    joins_.insert(wire);
    return Do(WorkerJoined{wire, *hello});
  }
  const auto& call = std::any_cast<const DispatchCall&>(first);
  dispatches_.insert(wire);
  Do(DispatchAsked{.ticket = wire, .request = call.request, .deadline = call.deadline});
}

void SimCoordinator::OnMessage(WireId wire, const Message& message) {
  if (!joins_.contains(wire)) return;
  if (const auto* heartbeat = std::any_cast<Heartbeat>(&message)) {
    Do(HeartbeatCame{wire, *heartbeat});
  } else if (const auto* report = std::any_cast<StageReport>(&message)) {
    Do(ReportCame{wire, *report});
  } else {
    Do(BreakCame{wire, std::any_cast<const StageBroken&>(message)});
  }
}

void SimCoordinator::OnClosed(WireId wire, const absl::Status&) {
  if (joins_.erase(wire) > 0) return Do(WorkerGone{wire});
  if (dispatches_.erase(wire) > 0) Do(DispatchCancelled{wire});
}

void SimCoordinator::Do(const CoordinatorEvent& event) {
  for (const CoordinatorEffect& effect : coordinator_.OnEvent(event, timeline_.now())) {
    if (const auto* send = std::get_if<SendToWorker>(&effect)) {
      network_.Send(node_, send->connection, send->command);
    } else if (const auto* close = std::get_if<CloseConnection>(&effect)) {
      joins_.erase(close->connection);
      network_.Close(node_, close->connection, close->status);
    } else if (const auto* answer = std::get_if<DispatchAnswer>(&effect)) {
      if (dispatches_.erase(answer->ticket) == 0) continue;
      if (answer->reply.ok()) network_.Send(node_, answer->ticket, *answer->reply);
      network_.Close(node_, answer->ticket, answer->reply.status());
    } else if (const auto* note = std::get_if<LogNote>(&effect)) {
      note_(*note);
    }
  }
}

}  // namespace sauva::sim
