#include "coordinator/runtime.h"

#include <future>
#include <utility>

#include "absl/time/clock.h"
#include "base/log.h"

namespace sauva {
namespace {

template <class Map>
typename Map::mapped_type Take(Map& map, typename Map::key_type key) {
  const auto found = map.find(key);
  if (found == map.end()) return nullptr;
  typename Map::mapped_type value = std::move(found->second);
  map.erase(found);
  return value;
}

}  // namespace

CoordinatorRuntime::CoordinatorRuntime(CoordinatorConfig config, Metrics& metrics)
    : config_(config),
      wall_start_(absl::Now()),
      steady_start_(std::chrono::steady_clock::now()),
      coordinator_(std::move(config)),
      metrics_(metrics) {
  loop_.Post([this] { Tick(); });
}

CoordinatorRuntime::~CoordinatorRuntime() {
  ShutDown();
  loop_.Stop();
}

// Starts at the wall clock's time and never goes back, whatever is done to that clock.
absl::Time CoordinatorRuntime::Now() const {
  return wall_start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_start_);
}

void CoordinatorRuntime::Tick() {
  Run(CoordinatorTick{});
  if (const absl::Time now = Now(); now >= next_show_) {
    metrics_.Show(coordinator_, now);
    next_show_ = now + config_.heartbeat;
  }
  loop_.PostAt(absl::Now() + config_.tick, [this] { Tick(); });
}

void CoordinatorRuntime::Run(const CoordinatorEvent& event) {
  for (const CoordinatorEffect& effect : coordinator_.OnEvent(event, Now())) Do(effect);
}

void CoordinatorRuntime::Do(const CoordinatorEffect& effect) {
  if (const auto* send = std::get_if<SendToWorker>(&effect)) {
    const auto connection = connections_.find(send->connection);
    if (connection == connections_.end() || connection->second->Send(send->command)) return;
    // A worker that does not read is as good as gone; its stream's end says so.
    Take(connections_, send->connection)
        ->Close(absl::ResourceExhaustedError("the worker does not read its commands"));
  } else if (const auto* close = std::get_if<CloseConnection>(&effect)) {
    if (const auto connection = Take(connections_, close->connection)) {
      connection->Close(close->status);
    }
  } else if (const auto* answer = std::get_if<DispatchAnswer>(&effect)) {
    if (const DispatchDone done = Take(dispatches_, answer->ticket)) done(answer->reply);
  } else if (const auto* load = std::get_if<LoadAnswer>(&effect)) {
    if (const LoadDone done = Take(loads_, load->ticket)) done(load->model);
  } else if (const auto* drain = std::get_if<DrainAnswer>(&effect)) {
    if (const DrainDone done = Take(drains_, drain->ticket)) done(drain->status);
  } else if (const auto* note = std::get_if<LogNote>(&effect)) {
    if (note->level == LogNote::Level::kWarning) {
      LogWarning(note->event, note->fields);
    } else {
      LogInfo(note->event, note->fields);
    }
  }
}

bool CoordinatorRuntime::Join(ConnectionId id, std::shared_ptr<WorkerConnection> connection,
                              WorkerHello hello) {
  return loop_.Post(
      [this, id, connection = std::move(connection), hello = std::move(hello)]() mutable {
        if (shut_down_) return connection->Close(absl::UnavailableError("shutting down"));
        connections_[id] = std::move(connection);
        Run(WorkerJoined{id, std::move(hello)});
      });
}

bool CoordinatorRuntime::Tell(CoordinatorEvent event) {
  return loop_.Post([this, event = std::move(event)] {
    Run(event);
    if (const auto* gone = std::get_if<WorkerGone>(&event)) connections_.erase(gone->connection);
  });
}

bool CoordinatorRuntime::Dispatch(Ticket ticket, DispatchRequest request, absl::Time deadline,
                                  DispatchDone done) {
  return loop_.Post(
      [this, ticket, request = std::move(request), deadline, done = std::move(done)]() mutable {
        dispatches_[ticket] = std::move(done);
        Run(DispatchAsked{.ticket = ticket,
                          .request = std::move(request),
                          .deadline = Now() + (deadline - absl::Now())});
      });
}

bool CoordinatorRuntime::CancelDispatch(Ticket ticket) {
  return loop_.Post([this, ticket] {
    Run(DispatchCancelled{ticket});
    if (const DispatchDone done = Take(dispatches_, ticket)) {
      done(absl::CancelledError("the caller gave up"));
    }
  });
}

bool CoordinatorRuntime::Load(ModelDescription model, int replicas, LoadDone done) {
  return loop_.Post([this, model = std::move(model), replicas, done = std::move(done)]() mutable {
    const Ticket ticket = NewTicket();
    loads_[ticket] = std::move(done);
    Run(LoadAsked{.ticket = ticket, .model = std::move(model), .replicas = replicas});
  });
}

bool CoordinatorRuntime::Drain(std::string worker_id, absl::Duration timeout, DrainDone done) {
  return loop_.Post(
      [this, worker_id = std::move(worker_id), timeout, done = std::move(done)]() mutable {
        if (shut_down_) return done(absl::UnavailableError("the coordinator shuts down"));
        const Ticket ticket = NewTicket();
        drains_[ticket] = std::move(done);
        Run(DrainAsked{.ticket = ticket, .worker_id = std::move(worker_id), .timeout = timeout});
      });
}

bool CoordinatorRuntime::Status(StatusDone done) {
  return loop_.Post([this, done = std::move(done)] { done(coordinator_.Status(Now())); });
}

void CoordinatorRuntime::ShutDown() {
  std::promise<void> said;
  const bool posted = loop_.Post([this, &said] {
    shut_down_ = true;
    Run(ShutDownAsked{});
    const absl::Status status = absl::UnavailableError("the coordinator shuts down");
    for (auto& [ticket, done] : std::exchange(drains_, {})) done(status);
    for (auto& [id, connection] : std::exchange(connections_, {})) connection->Close(status);
    said.set_value();
  });
  if (posted) said.get_future().wait();
}

}  // namespace sauva
