#include "tests/coordinator/story.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace sauva {

CoordinatorConfig Story::Config() {
  CoordinatorConfig config;
  config.start_time_ms = 1000;
  config.stages = 0;
  return config;
}

ModelDescription Story::Model(const std::string& name) {
  const LayerCosts layer{
      .weight_bytes = 1'000'000, .kv_bytes_per_token = 100, .operations_per_token = 1e6};
  return {.ref = {.name = name, .digest = name + "-digest"},
          .costs = {.layers = std::vector<LayerCosts>(6, layer),
                    .embedding_bytes = 100'000,
                    .head_bytes = 1000,
                    .hidden_bytes_per_token = 1024},
          .max_context = 256,
          .vocab_size = 512};
}

Story::Story(CoordinatorConfig config, int replicas)
    : config_(std::move(config)), replicas_(replicas) {
  coordinator_.emplace(config_);
  Event(LoadAsked{.ticket = 1, .model = Model(), .replicas = replicas_});
}

void Story::RestartCoordinator(uint64_t start_time_ms) {
  config_.start_time_ms = start_time_ms;
  coordinator_.emplace(config_);
  for (auto& [id, worker] : workers_) worker.connection = 0;
  Event(LoadAsked{.ticket = 1, .model = Model(), .replicas = replicas_});
}

Story::FakeWorker& Story::Prepare(const std::string& id) {
  FakeWorker& worker = workers_[id];
  if (worker.hello.worker_id.empty()) {
    worker.hello = {.worker_id = id,
                    .address = id + ":1",
                    .memory_bytes = 1'000'000'000,
                    .read_bytes_per_second = 1e10,
                    .operations_per_second = 1e11,
                    .link_bytes_per_second = 1e9};
  }
  return worker;
}

void Story::Join(const std::string& id) {
  FakeWorker& worker = Prepare(id);
  worker.hello.newest_epoch = std::max(worker.hello.newest_epoch, worker.newest_epoch);
  worker.hello.stage = worker.stage;
  worker.connection = ++last_connection_;
  Event(WorkerJoined{worker.connection, worker.hello});
}

void Story::JoinAll(int count) {
  for (int i = 0; i < count; ++i) Join("w" + std::to_string(i));
}

void Story::EndStream(const std::string& id) {
  const ConnectionId connection = std::exchange(workers_.at(id).connection, 0);
  Event(WorkerGone{connection});
}

void Story::Kill(const std::string& id) {
  const ConnectionId connection = workers_.at(id).connection;
  workers_.erase(id);
  if (connection != 0) Event(WorkerGone{connection});
}

void Story::Break(const std::string& reporter, const std::string& suspect,
                  std::optional<int> nccl_link) {
  FakeWorker& worker = workers_.at(reporter);
  const uint64_t epoch = worker.stage ? worker.stage->assignment.epoch : 0;
  worker.stage.reset();
  Event(BreakCame{
      worker.connection,
      {.epoch = epoch, .suspect_worker_id = suspect, .reason = "test", .nccl_link = nccl_link}});
}

void Story::Advance(absl::Duration duration) {
  const absl::Time end = now_ + duration;
  while (now_ < end) {
    now_ += std::min(config_.tick, end - now_);
    if (now_ >= next_beat_) {
      next_beat_ = now_ + config_.heartbeat;
      for (auto& [id, worker] : workers_) Beat(worker);
    }
    Event(CoordinatorTick{});
  }
}

Ticket Story::Dispatch(DispatchRequest request, absl::Duration timeout) {
  const Ticket ticket = ++last_ticket_;
  Event(DispatchAsked{.ticket = ticket, .request = std::move(request), .deadline = now_ + timeout});
  return ticket;
}

// What workers answer comes after what the coordinator said at the same moment.
void Story::Event(const CoordinatorEvent& event) {
  events_.push_back(event);
  if (events_.size() > 1) return;
  while (!events_.empty()) {
    Do(coordinator_->OnEvent(events_.front(), now_));
    events_.pop_front();
  }
}

std::optional<absl::StatusOr<DispatchReply>> Story::Answer(Ticket ticket) const {
  const auto found = answers_.find(ticket);
  if (found == answers_.end()) return std::nullopt;
  return found->second;
}

PipelineStatus Story::OnlyPipeline() const {
  const ClusterStatus status = Status();
  EXPECT_EQ(status.pipelines.size(), 1u);
  return status.pipelines.empty() ? PipelineStatus{} : status.pipelines[0];
}

std::vector<std::string> Story::WorkersOf(const PipelineStatus& pipeline) const {
  std::vector<std::string> ids;
  for (const StageStatus& stage : pipeline.stages) ids.push_back(stage.endpoint.worker_id);
  return ids;
}

void Story::Fail() { ADD_FAILURE() << "the condition did not come true in time"; }

void Story::Do(const CoordinatorEffects& effects) {
  for (const CoordinatorEffect& effect : effects) {
    if (const auto* send = std::get_if<SendToWorker>(&effect)) {
      FakeWorker* worker = ByConnection(send->connection);
      if (worker != nullptr && !worker->frozen) Hear(*worker, send->command);
    } else if (const auto* close = std::get_if<CloseConnection>(&effect)) {
      if (FakeWorker* worker = ByConnection(close->connection)) {
        worker->closed.push_back(close->status);
        worker->connection = 0;
      }
    } else if (const auto* answer = std::get_if<DispatchAnswer>(&effect)) {
      EXPECT_TRUE(answers_.emplace(answer->ticket, answer->reply).second) << "answered twice";
    } else if (const auto* drain = std::get_if<DrainAnswer>(&effect)) {
      EXPECT_TRUE(drains.emplace(drain->ticket, drain->status).second) << "answered twice";
    } else if (const auto* load = std::get_if<LoadAnswer>(&effect)) {
      loads.insert_or_assign(load->ticket, load->model);
    }
  }
}

void Story::Hear(FakeWorker& worker, const WorkerCommand& command) {
  if (const auto* assignment = std::get_if<StageAssignment>(&command)) {
    EXPECT_GT(assignment->epoch, worker.newest_epoch) << "a worker refuses an older epoch";
    worker.newest_epoch = assignment->epoch;
    worker.stage = StageReport{.assignment = *assignment, .phase = StagePhase::kLoading};
    Report(worker);
    if (worker.holds_back) return;
    if (worker.fails_to_load) {
      worker.stage->phase = StagePhase::kFailed;
      worker.stage->error = "digest is x, not y";
    } else {
      worker.loads += worker.held != assignment->layers();
      worker.held = assignment->layers();
      worker.stage->phase = StagePhase::kLoaded;
      worker.stage->max_kv_blocks = 100;
    }
    Report(worker);
  } else if (const auto* start = std::get_if<StartStage>(&command)) {
    if (!worker.stage || worker.stage->assignment.epoch != start->epoch) return;
    worker.stage->phase = StagePhase::kServing;
    worker.stage->num_kv_blocks = start->num_kv_blocks;
    Report(worker);
  } else if (const auto* stop = std::get_if<StopStage>(&command)) {
    worker.stops.push_back(*stop);
    if (worker.stage && worker.stage->assignment.epoch <= stop->epoch) worker.stage.reset();
    Beat(worker);
  } else if (const auto* drain = std::get_if<DrainWorker>(&command)) {
    worker.drain = *drain;
    worker.draining = true;
  }
}

void Story::Report(FakeWorker& worker) {
  if (worker.connection != 0) Event(ReportCame{worker.connection, *worker.stage});
}

void Story::Beat(FakeWorker& worker) {
  if (worker.connection == 0 || worker.frozen) return;
  Event(HeartbeatCame{worker.connection, {.stage = worker.stage, .draining = worker.draining}});
}

Story::FakeWorker* Story::ByConnection(ConnectionId connection) {
  for (auto& [id, worker] : workers_) {
    if (worker.connection == connection) return &worker;
  }
  return nullptr;
}

}  // namespace sauva
