#include "tests/worker/test_coordinator.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"

namespace sauva {

TestCoordinator::TestCoordinator(const std::string& address) {
  auto server = RpcServer::Start({.address = address}, {this});
  Check(server.ok(), "a test's coordinator listens");
  server_ = *std::move(server);
}

TestCoordinator::~TestCoordinator() { server_->Shutdown(absl::ZeroDuration()); }

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* TestCoordinator::Join(
    grpc::CallbackServerContext*) {
  auto stream = ServerStream<v1::WorkerMessage, v1::CoordinatorMessage>::Make({.messages = 256});
  uint64_t connection = 0;
  {
    const std::lock_guard lock(mutex_);
    connection = ++last_connection_;
    streams_[connection] = stream;
  }
  return stream->Listen(
      {.on_message = [this,
                      connection](const v1::WorkerMessage& message) { Take(connection, message); },
       .on_closed =
           [this, connection] {
             const std::lock_guard lock(mutex_);
             streams_.erase(connection);
             changed_.notify_all();
           }});
}

void TestCoordinator::Take(uint64_t connection, const v1::WorkerMessage& message) {
  absl::StatusOr<WorkerMessage> said = FromProto(message);
  Check(said.ok(), "workers make sense");
  const std::lock_guard lock(mutex_);
  if (auto* hello = std::get_if<WorkerHello>(&*said)) {
    worker_of_[connection] = hello->worker_id;
    members_[hello->worker_id] = {.hello = *hello, .stream = streams_.at(connection)};
    streams_.at(connection)
        ->Send(ToProto(CoordinatorMessage(Welcome{.lease_ms = 1000, .heartbeat_ms = 20})));
  }
  Member& member = members_[worker_of_.at(connection)];
  if (auto* report = std::get_if<StageReport>(&*said)) member.reports.push_back(*report);
  if (auto* broken = std::get_if<StageBroken>(&*said)) member.broken.push_back(*broken);
  if (auto* heartbeat = std::get_if<Heartbeat>(&*said)) {
    member.heartbeats.push_back(*heartbeat);
    if (heartbeat->stage) member.reports.push_back(*heartbeat->stage);
  }
  changed_.notify_all();
}

bool TestCoordinator::Member::Said(uint64_t epoch, StagePhase phase) const {
  return std::any_of(reports.begin(), reports.end(), [&](const StageReport& report) {
    return report.assignment.epoch == epoch && report.phase == phase;
  });
}

bool TestCoordinator::WaitUntil(const std::function<bool(std::map<std::string, Member>&)>& done) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return done(members_); });
}

bool TestCoordinator::WaitForPhase(const std::string& worker_id, uint64_t epoch, StagePhase phase) {
  return WaitUntil([&](auto& members) { return members[worker_id].Said(epoch, phase); });
}

TestCoordinator::Member TestCoordinator::member(const std::string& worker_id) {
  const std::lock_guard lock(mutex_);
  return members_[worker_id];
}

void TestCoordinator::Send(const std::string& worker_id, const CoordinatorMessage& message) {
  member(worker_id).stream->Send(ToProto(message));
}

bool TestCoordinator::StartPipeline(const StageAssignment& assignment) {
  StageAssignment own = assignment;
  for (own.stage_index = 0; own.stage_index < static_cast<int>(own.stages.size());
       ++own.stage_index) {
    Send(own.stages[static_cast<size_t>(own.stage_index)].worker_id, own);
  }
  uint32_t num_kv_blocks = UINT32_MAX;
  for (const StageEndpoint& stage : assignment.stages) {
    if (!WaitForPhase(stage.worker_id, assignment.epoch, StagePhase::kLoaded)) return false;
    for (const StageReport& report : member(stage.worker_id).reports) {
      if (report.assignment.epoch != assignment.epoch || report.max_kv_blocks == 0) continue;
      num_kv_blocks = std::min(num_kv_blocks, report.max_kv_blocks);
    }
  }
  for (const StageEndpoint& stage : assignment.stages) {
    Send(stage.worker_id, StartStage{assignment.epoch, num_kv_blocks});
  }
  return std::all_of(assignment.stages.begin(), assignment.stages.end(), [&](const auto& stage) {
    return WaitForPhase(stage.worker_id, assignment.epoch, StagePhase::kServing);
  });
}

}  // namespace sauva
