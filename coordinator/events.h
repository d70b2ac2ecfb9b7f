#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "coordinator/placement.h"
#include "engine/stage.h"
#include "proto/control.h"

// What happens to the coordinator and what it wants done.
namespace sauva {

// One Join stream, numbered by whoever runs the coordinator; never used twice, never 0.
using ConnectionId = uint64_t;
// One call that waits for an answer; never used twice.
using Ticket = uint64_t;

// All the coordinator must know of a model.
struct ModelDescription {
  ModelRef ref;
  ModelCosts costs;
  BackendScratch scratch;  // of a stage, beside its costs
  int max_context = 0;     // tokens, as served
  int vocab_size = 0;
};

// --- Events.

struct WorkerJoined {  // the first message of a stream
  ConnectionId connection = 0;
  WorkerHello hello;
};
struct HeartbeatCame {
  ConnectionId connection = 0;
  Heartbeat heartbeat;
};
struct ReportCame {
  ConnectionId connection = 0;
  StageReport report;
};
struct BreakCame {
  ConnectionId connection = 0;
  StageBroken broken;
};
struct WorkerGone {  // the stream ended, for whatever reason
  ConnectionId connection = 0;
};
struct DispatchAsked {  // answered by one DispatchAnswer
  Ticket ticket = 0;
  DispatchRequest request;
  absl::Time deadline = absl::InfiniteFuture();
};
struct DispatchCancelled {  // no answer is wanted any more
  Ticket ticket = 0;
};
struct LoadAsked {  // answered by one LoadAnswer
  Ticket ticket = 0;
  ModelDescription model;
  int replicas = 1;
};
struct DrainAsked {  // answered by one DrainAnswer
  Ticket ticket = 0;
  std::string worker_id;
  absl::Duration timeout;
};
struct ShutDownAsked {};    // waiting dispatches end with UNAVAILABLE, as do later ones
struct CoordinatorTick {};  // at least every CoordinatorConfig::tick

using CoordinatorEvent =
    std::variant<WorkerJoined, HeartbeatCame, ReportCame, BreakCame, WorkerGone, DispatchAsked,
                 DispatchCancelled, LoadAsked, DrainAsked, ShutDownAsked, CoordinatorTick>;

// --- Effects.

using WorkerCommand = std::variant<Welcome, StageAssignment, StartStage, StopStage, DrainWorker>;

struct SendToWorker {
  ConnectionId connection = 0;
  WorkerCommand command;
};
struct CloseConnection {  // the stream ends with this status; WorkerGone may follow or not
  ConnectionId connection = 0;
  absl::Status status;
};
struct DispatchAnswer {
  Ticket ticket = 0;
  absl::StatusOr<DispatchReply> reply;
};
struct LoadAnswer {
  Ticket ticket = 0;
  absl::StatusOr<ModelRef> model;
};
struct DrainAnswer {
  Ticket ticket = 0;
  absl::Status status;
};
struct LogNote {
  enum class Level { kInfo, kWarning };
  Level level = Level::kInfo;
  std::string event;
  std::vector<LogField> fields;
};

using CoordinatorEffect =
    std::variant<SendToWorker, CloseConnection, DispatchAnswer, LoadAnswer, DrainAnswer, LogNote>;
using CoordinatorEffects = std::vector<CoordinatorEffect>;

}  // namespace sauva
