#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"

namespace sauva {

// A coordinator with its workers, told as a story: time passes only in Advance, and every
// worker does at once what it is told unless it is silent, frozen or holds back.
class Story {
 public:
  struct FakeWorker {
    WorkerHello hello;
    ConnectionId connection = 0;       // 0: not connected
    std::optional<StageReport> stage;  // what it serves
    uint64_t newest_epoch = 0;
    bool frozen = false;  // hears and says nothing
    bool fails_to_load = false;
    bool holds_back = false;  // hears commands, beats its heart, does nothing
    bool draining = false;
    int loads = 0;    // times weights were read
    LayerRange held;  // weights in memory
    std::vector<StopStage> stops;
    std::optional<DrainWorker> drain;
    std::vector<absl::Status> closed;
  };

  explicit Story(CoordinatorConfig config = Config(), int replicas = 1);

  static CoordinatorConfig Config();
  static ModelDescription Model(const std::string& name = "prose");

  // The coordinator is replaced by a fresh one; workers keep serving, unconnected.
  void RestartCoordinator(uint64_t start_time_ms);

  // The worker of this name, which may not have joined yet.
  FakeWorker& Prepare(const std::string& id);
  void Join(const std::string& id);  // a new process, or one that comes back
  void JoinAll(int count);           // w0, w1, …
  void EndStream(const std::string& id);
  void Kill(const std::string& id);  // the process and its stream
  void Break(const std::string& reporter, const std::string& suspect,
             std::optional<int> nccl_link = std::nullopt);
  void Advance(absl::Duration duration);
  // Advances in ticks until the condition holds; fails the test after `limit`.
  template <class Condition>
  void AdvanceUntil(Condition condition, absl::Duration limit = absl::Seconds(60)) {
    const absl::Time end = now_ + limit;
    while (!condition() && now_ < end) Advance(config_.tick);
    if (!condition()) Fail();
  }
  void AdvanceUntilReady(int pipelines = 1) {
    AdvanceUntil([&] { return coordinator_->num_ready_pipelines() == pipelines; });
  }

  Ticket Dispatch(DispatchRequest request = {}, absl::Duration timeout = absl::Seconds(10));
  void Event(const CoordinatorEvent& event);

  // The answer, or nothing yet.
  std::optional<absl::StatusOr<DispatchReply>> Answer(Ticket ticket) const;

  ClusterStatus Status() const { return coordinator_->Status(now_); }
  PipelineStatus OnlyPipeline() const;
  std::vector<std::string> WorkersOf(const PipelineStatus& pipeline) const;
  absl::Time now() const { return now_; }
  FakeWorker& worker(const std::string& id) { return workers_.at(id); }
  const Coordinator& coordinator() const { return *coordinator_; }

  std::map<Ticket, absl::Status> drains;
  std::map<Ticket, absl::StatusOr<ModelRef>> loads;

 private:
  static void Fail();
  void Do(const CoordinatorEffects& effects);
  void Hear(FakeWorker& worker, const WorkerCommand& command);
  void Report(FakeWorker& worker);
  void Beat(FakeWorker& worker);
  FakeWorker* ByConnection(ConnectionId connection);

  CoordinatorConfig config_;
  int replicas_;
  std::optional<Coordinator> coordinator_;
  std::map<std::string, FakeWorker> workers_;
  std::map<Ticket, absl::StatusOr<DispatchReply>> answers_;
  std::deque<CoordinatorEvent> events_;
  ConnectionId last_connection_ = 0;
  Ticket last_ticket_ = 1000;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  absl::Time next_beat_ = now_;
};

}  // namespace sauva
