#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "base/metrics.h"
#include "coordinator/coordinator.h"
#include "coordinator/coordinator_metrics.h"

namespace sauva {

// Where the coordinator's commands to one worker go.
class WorkerConnection {
 public:
  virtual ~WorkerConnection() = default;
  // False when the stream has ended or takes no more.
  virtual bool Send(const WorkerCommand& command) = 0;
  virtual void Close(const absl::Status& status) = 0;
};

// Runs a Coordinator on a loop of its own: the clock, the ticks, and the way from effects
// to the streams and calls that wait for them.
// Thread: any, except where said. Callbacks run on the loop's thread, each once.
class CoordinatorRuntime {
 public:
  // `metrics` must outlive this object.
  CoordinatorRuntime(CoordinatorConfig config, Metrics& metrics);
  // Stops the loop: calls that wait are answered with UNAVAILABLE before.
  ~CoordinatorRuntime();

  // A stream's events. The connection is held until it is closed or gone.
  // Shared: connections are held by the runtime and, while gRPC works on them, by their stream.
  // All return false when the loop is too busy: the caller ends its stream or call.
  bool Join(ConnectionId id, std::shared_ptr<WorkerConnection> connection, WorkerHello hello);
  bool Tell(CoordinatorEvent event);

  using DispatchDone = std::function<void(absl::StatusOr<DispatchReply>)>;
  using LoadDone = std::function<void(absl::StatusOr<ModelRef>)>;
  using DrainDone = std::function<void(absl::Status)>;
  using StatusDone = std::function<void(const ClusterStatus&)>;

  // `deadline` is of the wall clock. The ticket cancels.
  Ticket NewTicket() { return ++last_ticket_; }
  bool Dispatch(Ticket ticket, DispatchRequest request, absl::Time deadline, DispatchDone done);
  bool CancelDispatch(Ticket ticket);  // answered with CANCELLED unless it was before
  bool Load(ModelDescription model, int replicas, LoadDone done);
  bool Drain(std::string worker_id, absl::Duration timeout, DrainDone done);
  bool Status(StatusDone done);
  // Runs a task on the loop's thread, if it is not too busy.
  bool Post(std::function<void()> task) { return loop_.Post(std::move(task)); }

  // Ends every call and stream with UNAVAILABLE and waits until that is said.
  void ShutDown();

 private:
  // All below: on the loop's thread.
  absl::Time Now() const;
  void Run(const CoordinatorEvent& event);
  void Do(const CoordinatorEffect& effect);
  void Tick();

  const CoordinatorConfig config_;
  const absl::Time wall_start_;
  const std::chrono::steady_clock::time_point steady_start_;
  Coordinator coordinator_;
  CoordinatorMetrics metrics_;
  absl::Time next_show_ = absl::InfinitePast();
  std::map<ConnectionId, std::shared_ptr<WorkerConnection>> connections_;
  std::map<Ticket, DispatchDone> dispatches_;
  std::map<Ticket, LoadDone> loads_;
  std::map<Ticket, DrainDone> drains_;
  bool shut_down_ = false;
  std::atomic<Ticket> last_ticket_ = 0;
  EventLoop loop_;  // last: its thread uses all the others
};

}  // namespace sauva
