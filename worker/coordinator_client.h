#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "net/tls.h"
#include "proto/control.h"
#include "worker/worker_session.h"

namespace sauva {

// The Join stream to the coordinator: opened again with back-off whenever it ends, so that
// a worker outlives its coordinator. Each stream begins with a hello that says what the
// worker serves.
// Thread: the loop's, construction and destruction apart.
class CoordinatorClient {
 public:
  struct Handlers {
    std::function<WorkerHello()> hello;         // what to say first on a new stream
    std::function<void(WorkerEvent)> on_event;  // commands; CoordinatorLost
  };

  // The loop must outlive it.
  CoordinatorClient(EventLoop& loop, std::string address, const TlsOptions& tls, Handlers handlers);
  // Cancels the stream and waits for gRPC to let go of it. The loop has ended.
  ~CoordinatorClient();

  // Begins to connect. Errors: as MakeChannel.
  absl::Status Start();

  // Sends on the stream there is; without one the next hello says it all.
  void Send(const StageReport& report);
  void Send(const StageBroken& broken);
  void Send(const Heartbeat& heartbeat);

 private:
  struct Connection;

  using Command = std::variant<Welcome, StageAssignment, StartStage, StopStage, DrainWorker>;

  void Connect();
  void Take(Command command);
  void OnClosed(const absl::Status& status);

  EventLoop& loop_;
  const std::string address_;
  const TlsOptions tls_;
  const Handlers handlers_;
  absl::Duration backoff_;
  bool was_lost_ = false;  // logged once per loss
  std::unique_ptr<Connection> connection_;
};

}  // namespace sauva
