#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster.h"
#include "coordinator/dispatcher.h"
#include "coordinator/events.h"
#include "coordinator/link_failures.h"
#include "coordinator/links.h"
#include "coordinator/placement.h"
#include "proto/control.h"

namespace sauva {

struct CoordinatorConfig {
  uint64_t start_time_ms = 0;  // wall clock; the upper bits of this coordinator's epochs
  std::string build_id;

  absl::Duration heartbeat = absl::Milliseconds(250);
  absl::Duration lease = absl::Seconds(2);  // a worker silent for longer is lost
  // A worker whose stream ended but whose pipeline no one complains about may come back.
  absl::Duration rejoin_grace = absl::Seconds(1);
  absl::Duration tick = absl::Milliseconds(50);
  absl::Duration load_timeout = absl::Minutes(30);
  absl::Duration first_backoff = absl::Milliseconds(250);
  absl::Duration max_backoff = absl::Seconds(10);
  absl::Duration drain_timeout = absl::Seconds(30);  // where none is given

  // Nothing is placed for two leases, so that serving workers can report first; with
  // expected_workers, until so many have joined, if that is earlier. 0: no such number.
  int expected_workers = 0;
  int max_workers = 1024;
  int max_waiting = 1024;  // dispatches

  int stages = 0;  // of each pipeline; 0: what placement chooses
  int spares = 0;  // workers kept unloaded
  BackendMixing mixing = BackendMixing::kOneClass;
  LinkPolicy link = LinkPolicy::kAuto;
  LinkFailureLimits link_failures;
  std::string weight_format = "native";
  std::string kv_type = "f32";
  uint64_t kv_memory_bytes = 0;  // per stage; 0: what the budget leaves
  int max_step_tokens = 256;
  int max_sequences = 64;
};

// Epochs are below it: milliseconds of the coordinator's start << 20 | counter reach it in
// the year 2248.
inline constexpr uint64_t kEpochLimit = uint64_t{1} << 63;

struct CoordinatorCounters {
  uint64_t epochs_started = 0;
  uint64_t epochs_ready = 0;
  uint64_t epochs_adopted = 0;
  uint64_t epochs_ended = 0;
  uint64_t placements = 0;
  uint64_t placement_refusals = 0;
  uint64_t moved_bytes = 0;
  uint64_t workers_lost = 0;
  uint64_t link_failures = 0;                  // of NCCL links over which no step had passed
  uint64_t links_given_up = 0;                 // times a pair of workers was avoided from then on
  std::map<std::string, uint64_t> dispatches;  // by outcome
  std::map<std::string, uint64_t> refusals;    // of joins, loads and drains, by status code
};

// Who is there, who serves what, and where a request goes.
//
// Membership: a worker lives as long as its stream and its heartbeats. A stream that ends
// while its pipeline serves leaves the worker rejoin_grace to come back; a neighbour's
// complaint or a client's broken stream cuts that short. A pipeline ends when one of its
// workers is lost or a stage reports it broken; its other workers are told to stop and
// keep their weights, and a new pipeline is placed under a new epoch where the fewest
// bytes move. Running pipelines are never disturbed for a better placement.
//
// Epochs are start_time_ms << 20 | counter, and above every epoch any worker reports. A
// pipeline of an earlier coordinator is adopted once all its stages have joined and serve.
//
// Pure: no clock, no I/O. Time never goes back. Thread: its owner's.
class Coordinator {
 public:
  explicit Coordinator(CoordinatorConfig config);

  CoordinatorEffects OnEvent(const CoordinatorEvent& event, absl::Time now);

  ClusterStatus Status(absl::Time now) const;
  const CoordinatorCounters& counters() const { return counters_; }
  // Pairs of workers whose NCCL links failed, avoided or not yet.
  size_t num_failed_pairs() const { return link_failures_.size(); }
  int num_waiting() const { return waiting_.size(); }
  int num_ready_pipelines() const;

 private:
  // coordinator_members.cc: workers come, report and go.
  void Handle(const WorkerJoined& event);
  void Handle(const HeartbeatCame& event);
  void Handle(const ReportCame& event);
  void Handle(const BreakCame& event);
  void Handle(const WorkerGone& event);
  absl::Status CheckHello(const WorkerHello& hello) const;
  WorkerRecord& Admit(const WorkerJoined& event);
  WorkerRecord* Hear(ConnectionId connection);
  void Reconcile(WorkerRecord& worker, const std::optional<StageReport>& report);
  void NoteLinkFailure(const std::string& reporter, const StageBroken& broken);
  void Blame(WorkerRecord& suspect);
  void Lose(const std::string& worker_id, const std::string& reason);
  void ExpireLeases();
  void ForgiveAbsence();

  // coordinator_pipelines.cc: the life of a pipeline.
  void Create(ModelRecord& model, const std::vector<StageEndpoint>& stages);
  void TakeReport(PipelineRecord& pipeline, int stage_index, const StageReport& report);
  void StartIfLoaded(PipelineRecord& pipeline);
  void ReadyIfServing(PipelineRecord& pipeline);
  void FailLoad(PipelineRecord& pipeline, const std::string& error);
  void End(uint64_t epoch, const std::string& reason);
  void RememberEnded(uint64_t epoch);
  void RememberLinks(const PipelineRecord& pipeline);
  static void Hold(WorkerRecord& worker, const StageAssignment& assignment, LayerRange layers);
  void Retire(PipelineRecord& pipeline, absl::Time deadline);
  void EndIdleAndOverdue();
  void ForgiveAfterServingWell();

  // coordinator_adoption.cc: pipelines of an earlier coordinator.
  void TakeOrphan(WorkerRecord& worker, const StageReport& report);
  void AdoptIfComplete(const StageAssignment& assignment);
  bool CanStillComplete(const StageAssignment& assignment) const;
  void ReleaseOrphans();
  void ReleaseOrphan(WorkerRecord& worker, const std::string& reason);

  // coordinator_planning.cc: which pipelines to make.
  void Plan();
  bool MayPlace();
  void PlanModel(ModelRecord& model);
  std::vector<const WorkerRecord*> FreeWorkers();
  bool WaitsForTheSilent();
  Placement PlaceOn(const ModelRecord& model, const std::vector<const WorkerRecord*>& workers);
  PlacementGoals GoalsFor(const ModelRecord& model, int num_workers) const;
  bool MoveOffDraining(ModelRecord& model, std::vector<const WorkerRecord*> workers);
  void CreateAll(ModelRecord& model, const Placement& placement,
                 const std::vector<const WorkerRecord*>& workers);
  absl::StatusOr<std::vector<StageEndpoint>> LinkedStages(
      const ModelRecord& model, const PlacedPipeline& placed,
      const std::vector<const WorkerRecord*>& workers) const;
  std::string DonorFor(const ModelRecord& model, const WorkerRecord& worker,
                       LayerRange layers) const;
  void RefuseLinks(ModelRecord& model, const absl::Status& reason);
  void PlanAgainAt(absl::Time when) { plan_at_ = std::min(plan_at_, when); }
  absl::Duration Backoff(int failures) const;

  // coordinator_requests.cc: dispatches, models and drains.
  void Handle(const DispatchAsked& event);
  void Handle(const DispatchCancelled& event);
  void Handle(const LoadAsked& event);
  void Handle(const DrainAsked& event);
  void Handle(const ShutDownAsked& event);
  void Handle(const CoordinatorTick& event);
  absl::StatusOr<std::string> ResolveModel(const std::string& name) const;
  absl::Status CheckDispatch(const DispatchAsked& event) const;
  bool TryDispatch(const WaitingList::Entry& entry);
  void ServeWaiting();
  void ExpireDispatches();
  void EndPipelinesClientsLost(const DispatchRequest& request);
  void Answer(Ticket ticket, absl::StatusOr<DispatchReply> reply);
  void BeginDrain(WorkerRecord& worker, absl::Time deadline);
  void FinishDrains();

  PipelineRecord* FindPipeline(uint64_t epoch);
  WorkerRecord* FindWorker(const std::string& worker_id);
  const WorkerRecord* FindWorker(const std::string& worker_id) const;
  ModelRecord* FindModelByDigest(const std::string& digest);
  // Pipelines that count as replicas, ready or on their way, and the workers in them.
  int NumReplicas(const ModelRecord& model) const;
  int WorkersOf(const ModelRecord& model) const;
  bool HasOtherReady(const PipelineRecord& pipeline) const;
  void Send(const WorkerRecord& worker, WorkerCommand command);
  void Log(LogNote::Level level, std::string event, std::vector<LogField> fields);

  const CoordinatorConfig config_;
  std::map<std::string, WorkerRecord> workers_;
  std::map<ConnectionId, std::string> connections_;
  std::map<uint64_t, PipelineRecord> pipelines_;  // by epoch
  std::map<std::string, ModelRecord> models_;     // by name
  LinkFailures link_failures_;
  std::deque<EndedLinks> ended_links_;  // of the newest few pipelines that had some by NCCL
  WaitingList waiting_;
  CoordinatorCounters counters_;

  uint64_t next_epoch_;
  std::set<uint64_t> ended_;  // epochs that must not come back; the newest few thousand

  absl::Time started_at_ = absl::InfiniteFuture();  // the first event
  absl::Time last_event_at_ = absl::InfinitePast();
  bool placing_ = false;  // the time of adoption only is over
  absl::Time plan_at_ = absl::InfiniteFuture();
  bool shutting_down_ = false;

  // Of the OnEvent now running.
  absl::Time now_;
  CoordinatorEffects effects_;
};

}  // namespace sauva
