#include "proto/control_codec.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

constexpr uint32_t kMaxLayers = 1 << 16;
constexpr uint32_t kMaxTokens = 1 << 30;
constexpr uint32_t kMaxThreads = 1 << 14;

absl::Status CheckLimit(const char* field, uint64_t found, uint64_t limit) {
  if (found <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", found, "; the limit is ", limit));
}

absl::Status CheckRate(const char* field, double found) {
  if (std::isfinite(found) && found >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", found, "; it must be >= 0"));
}

ModelRef FromProto(const v1::ModelRef& in) { return {in.name(), in.digest()}; }
void ToProto(const ModelRef& in, v1::ModelRef* out) {
  out->set_name(in.name);
  out->set_digest(in.digest);
}

absl::StatusOr<LinkKind> FromProto(v1::LinkKind in) {
  switch (in) {
    case v1::LINK_KIND_UNSPECIFIED:
    case v1::LINK_KIND_GRPC:
      return LinkKind::kGrpc;
    case v1::LINK_KIND_NCCL:
      return LinkKind::kNccl;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("link is ", static_cast<int>(in), ", which this version lacks"));
  }
}

absl::StatusOr<StageEndpoint> FromProto(const v1::StageEndpoint& in) {
  RETURN_IF_ERROR(CheckLimit("layers.last", in.layers().last(), kMaxLayers));
  if (in.layers().first() >= in.layers().last()) {
    return absl::InvalidArgumentError(absl::StrCat("stage of worker ", in.worker_id(),
                                                   " has layers [", in.layers().first(), ", ",
                                                   in.layers().last(), "), which is none"));
  }
  ASSIGN_OR_RETURN(const LinkKind link, FromProto(in.link()));
  return StageEndpoint{in.worker_id(),
                       in.address(),
                       {static_cast<int>(in.layers().first()), static_cast<int>(in.layers().last())},
                       link, in.donor()};
}

void ToProto(const StageEndpoint& in, v1::StageEndpoint* out) {
  out->set_worker_id(in.worker_id);
  out->set_address(in.address);
  out->mutable_layers()->set_first(static_cast<uint32_t>(in.layers.first));
  out->mutable_layers()->set_last(static_cast<uint32_t>(in.layers.last));
  out->set_donor(in.donor);
  out->set_link(in.link == LinkKind::kNccl ? v1::LINK_KIND_NCCL : v1::LINK_KIND_GRPC);
}

// The layers of a pipeline's stages follow each other from 0 without gaps.
absl::Status CheckStages(const StageAssignment& assignment) {
  int next = 0;
  for (const StageEndpoint& stage : assignment.stages) {
    if (stage.layers.first != next) {
      return absl::InvalidArgumentError(absl::StrCat("stages of epoch ", assignment.epoch,
                                                     " leave a gap before layer ",
                                                     stage.layers.first, "; expected ", next));
    }
    next = stage.layers.last;
  }
  return absl::OkStatus();
}

absl::StatusOr<StageAssignment> FromProto(const v1::LoadStage& in) {
  StageAssignment out;
  RETURN_IF_ERROR(CheckLimit("stages (entries)", static_cast<uint64_t>(in.stages_size()), kMaxStages));
  if (in.stages_size() == 0 || in.stage_index() >= static_cast<uint32_t>(in.stages_size())) {
    return absl::InvalidArgumentError(absl::StrCat("stage_index is ", in.stage_index(), " of ",
                                                   in.stages_size(), " stages"));
  }
  RETURN_IF_ERROR(CheckLimit("max_context", in.max_context(), kMaxTokens));
  RETURN_IF_ERROR(CheckLimit("max_step_tokens", in.max_step_tokens(), 1 << 16));
  RETURN_IF_ERROR(CheckLimit("max_sequences", in.max_sequences(), 4096));
  out.epoch = in.epoch();
  out.model = FromProto(in.model());
  out.stage_index = static_cast<int>(in.stage_index());
  for (const v1::StageEndpoint& entry : in.stages()) {
    ASSIGN_OR_RETURN(StageEndpoint stage, FromProto(entry));
    out.stages.push_back(std::move(stage));
  }
  RETURN_IF_ERROR(CheckStages(out));
  out.weight_format = in.weight_format();
  out.kv_type = in.kv_type();
  out.kv_memory_bytes = in.kv_memory_bytes();
  out.max_context = static_cast<int>(in.max_context());
  out.max_step_tokens = static_cast<int>(in.max_step_tokens());
  out.max_sequences = static_cast<int>(in.max_sequences());
  out.numerics_id = in.numerics_id();
  return out;
}

void ToProto(const StageAssignment& in, v1::LoadStage* out) {
  out->set_epoch(in.epoch);
  ToProto(in.model, out->mutable_model());
  out->set_stage_index(static_cast<uint32_t>(in.stage_index));
  for (const StageEndpoint& stage : in.stages) ToProto(stage, out->add_stages());
  out->set_weight_format(in.weight_format);
  out->set_kv_type(in.kv_type);
  out->set_kv_memory_bytes(in.kv_memory_bytes);
  out->set_max_context(static_cast<uint32_t>(in.max_context));
  out->set_max_step_tokens(static_cast<uint32_t>(in.max_step_tokens));
  out->set_max_sequences(static_cast<uint32_t>(in.max_sequences));
  out->set_numerics_id(in.numerics_id);
}

absl::StatusOr<StagePhase> FromProto(v1::StagePhase in) {
  switch (in) {
    case v1::STAGE_PHASE_LOADING:
      return StagePhase::kLoading;
    case v1::STAGE_PHASE_LOADED:
      return StagePhase::kLoaded;
    case v1::STAGE_PHASE_SERVING:
      return StagePhase::kServing;
    case v1::STAGE_PHASE_FAILED:
      return StagePhase::kFailed;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("stage phase is ", static_cast<int>(in), ", which this version lacks"));
  }
}

v1::StagePhase ToProto(StagePhase in) {
  switch (in) {
    case StagePhase::kLoading:
      return v1::STAGE_PHASE_LOADING;
    case StagePhase::kLoaded:
      return v1::STAGE_PHASE_LOADED;
    case StagePhase::kServing:
      return v1::STAGE_PHASE_SERVING;
    case StagePhase::kFailed:
      return v1::STAGE_PHASE_FAILED;
  }
  return v1::STAGE_PHASE_UNSPECIFIED;
}

absl::StatusOr<StageReport> FromProto(const v1::StageReport& in) {
  StageReport out;
  ASSIGN_OR_RETURN(out.assignment, FromProto(in.assignment()));
  ASSIGN_OR_RETURN(out.phase, FromProto(in.phase()));
  out.error = in.error();
  out.max_kv_blocks = in.max_kv_blocks();
  out.num_kv_blocks = in.num_kv_blocks();
  out.weight_bytes = in.weight_bytes();
  out.scratch_bytes = in.scratch_bytes();
  out.kv_bytes = in.kv_bytes();
  out.steps_done = in.steps_done();
  out.tokens_done = in.tokens_done();
  out.step_seconds = in.step_seconds();
  out.running_sequences = in.running_sequences();
  out.waiting_sequences = in.waiting_sequences();
  out.free_kv_blocks = in.free_kv_blocks();
  return out;
}

void ToProto(const StageReport& in, v1::StageReport* out) {
  ToProto(in.assignment, out->mutable_assignment());
  out->set_phase(ToProto(in.phase));
  out->set_error(in.error);
  out->set_max_kv_blocks(in.max_kv_blocks);
  out->set_num_kv_blocks(in.num_kv_blocks);
  out->set_weight_bytes(in.weight_bytes);
  out->set_scratch_bytes(in.scratch_bytes);
  out->set_kv_bytes(in.kv_bytes);
  out->set_steps_done(in.steps_done);
  out->set_tokens_done(in.tokens_done);
  out->set_step_seconds(in.step_seconds);
  out->set_running_sequences(in.running_sequences);
  out->set_waiting_sequences(in.waiting_sequences);
  out->set_free_kv_blocks(in.free_kv_blocks);
}

absl::StatusOr<WorkerHello> FromProto(const v1::WorkerHello& in) {
  WorkerHello out;
  if (in.worker_id().empty()) return absl::InvalidArgumentError("hello.worker_id is empty");
  if (in.address().empty()) return absl::InvalidArgumentError("hello.address is empty");
  RETURN_IF_ERROR(CheckRate("hello.read_bytes_per_second", in.read_bytes_per_second()));
  RETURN_IF_ERROR(CheckRate("hello.operations_per_second", in.operations_per_second()));
  RETURN_IF_ERROR(CheckRate("hello.link_bytes_per_second", in.link_bytes_per_second()));
  out.worker_id = in.worker_id();
  out.protocol_version = in.protocol_version();
  out.numerics_version = in.numerics_version();
  out.address = in.address();
  out.metrics_address = in.metrics_address();
  out.backend_class = in.backend_class();
  out.memory_bytes = in.memory_bytes();
  out.read_bytes_per_second = in.read_bytes_per_second();
  out.operations_per_second = in.operations_per_second();
  out.link_bytes_per_second = in.link_bytes_per_second();
  RETURN_IF_ERROR(CheckLimit("hello.threads", in.threads(), kMaxThreads));
  out.threads = static_cast<int>(in.threads());
  out.build_id = in.build_id();
  out.newest_epoch = in.newest_epoch();
  out.nccl = {in.nccl().version(), in.nccl().device(), in.nccl().error()};
  if (in.has_stage()) {
    ASSIGN_OR_RETURN(out.stage, FromProto(in.stage()));
  }
  return out;
}

void ToProto(const WorkerHello& in, v1::WorkerHello* out) {
  out->set_worker_id(in.worker_id);
  out->set_protocol_version(in.protocol_version);
  out->set_numerics_version(in.numerics_version);
  out->set_address(in.address);
  out->set_metrics_address(in.metrics_address);
  out->set_backend_class(in.backend_class);
  out->set_memory_bytes(in.memory_bytes);
  out->set_read_bytes_per_second(in.read_bytes_per_second);
  out->set_operations_per_second(in.operations_per_second);
  out->set_link_bytes_per_second(in.link_bytes_per_second);
  out->set_threads(static_cast<uint32_t>(in.threads));
  out->set_build_id(in.build_id);
  out->set_newest_epoch(in.newest_epoch);
  out->mutable_nccl()->set_version(in.nccl.version);
  out->mutable_nccl()->set_device(in.nccl.device);
  out->mutable_nccl()->set_error(in.nccl.error);
  if (in.stage.has_value()) ToProto(*in.stage, out->mutable_stage());
}

absl::StatusOr<Heartbeat> FromProto(const v1::Heartbeat& in) {
  Heartbeat out;
  out.draining = in.draining();
  if (in.has_stage()) {
    ASSIGN_OR_RETURN(out.stage, FromProto(in.stage()));
  }
  return out;
}

absl::StatusOr<StageBroken> FromProto(const v1::StageBroken& in) {
  RETURN_IF_ERROR(CheckLimit("stage_broken.nccl_link", in.nccl_link(), kMaxStages));
  StageBroken out{in.epoch(), in.suspect_worker_id(), in.reason()};
  if (in.nccl_link() > 0) out.nccl_link = static_cast<int>(in.nccl_link()) - 1;
  return out;
}

absl::StatusOr<PipelineStatus> FromProto(const v1::PipelineStatus& in) {
  PipelineStatus out;
  out.epoch = in.epoch();
  out.model = FromProto(in.model());
  out.ready = in.ready();
  out.numerics_id = in.numerics_id();
  for (const v1::StageStatus& entry : in.stages()) {
    StageStatus stage;
    ASSIGN_OR_RETURN(stage.endpoint, FromProto(entry.endpoint()));
    if (entry.has_report()) {
      ASSIGN_OR_RETURN(stage.report, FromProto(entry.report()));
    }
    stage.metrics_address = entry.metrics_address();
    out.stages.push_back(std::move(stage));
  }
  return out;
}

void ToProto(const PipelineStatus& in, v1::PipelineStatus* out) {
  out->set_epoch(in.epoch);
  ToProto(in.model, out->mutable_model());
  out->set_ready(in.ready);
  out->set_numerics_id(in.numerics_id);
  for (const StageStatus& stage : in.stages) {
    v1::StageStatus* added = out->add_stages();
    ToProto(stage.endpoint, added->mutable_endpoint());
    // Until its first report nothing is known of a stage.
    if (!stage.report.assignment.stages.empty()) ToProto(stage.report, added->mutable_report());
    added->set_metrics_address(stage.metrics_address);
  }
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

absl::StatusOr<WorkerMessage> FromProto(const v1::WorkerMessage& in) {
  switch (in.message_case()) {
    case v1::WorkerMessage::kHello:
      return FromProto(in.hello());
    case v1::WorkerMessage::kHeartbeat:
      return FromProto(in.heartbeat());
    case v1::WorkerMessage::kStageReport:
      return FromProto(in.stage_report());
    case v1::WorkerMessage::kStageBroken:
      return FromProto(in.stage_broken());
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("worker message is empty or of a kind this version lacks");
}

v1::WorkerMessage ToProto(const WorkerMessage& in) {
  v1::WorkerMessage out;
  std::visit(Overloaded{
                 [&](const WorkerHello& hello) { ToProto(hello, out.mutable_hello()); },
                 [&](const Heartbeat& beat) {
                   v1::Heartbeat* added = out.mutable_heartbeat();
                   added->set_draining(beat.draining);
                   if (beat.stage.has_value()) ToProto(*beat.stage, added->mutable_stage());
                 },
                 [&](const StageReport& report) { ToProto(report, out.mutable_stage_report()); },
                 [&](const StageBroken& broken) {
                   v1::StageBroken* added = out.mutable_stage_broken();
                   added->set_epoch(broken.epoch);
                   added->set_suspect_worker_id(broken.suspect_worker_id);
                   added->set_reason(broken.reason);
                   if (broken.nccl_link) {
                     added->set_nccl_link(static_cast<uint32_t>(*broken.nccl_link) + 1);
                   }
                 },
             },
             in);
  return out;
}

absl::StatusOr<CoordinatorMessage> FromProto(const v1::CoordinatorMessage& in) {
  switch (in.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      RETURN_IF_ERROR(CheckLimit("welcome.lease_ms", in.welcome().lease_ms(), 1 << 30));
      RETURN_IF_ERROR(CheckLimit("welcome.heartbeat_ms", in.welcome().heartbeat_ms(), 1 << 30));
      return Welcome{in.welcome().protocol_version(), static_cast<int>(in.welcome().lease_ms()),
                     static_cast<int>(in.welcome().heartbeat_ms())};
    case v1::CoordinatorMessage::kLoadStage:
      return FromProto(in.load_stage());
    case v1::CoordinatorMessage::kStartStage:
      return StartStage{in.start_stage().epoch(), in.start_stage().num_kv_blocks()};
    case v1::CoordinatorMessage::kStopStage:
      return StopStage{in.stop_stage().epoch(), in.stop_stage().reason()};
    case v1::CoordinatorMessage::kDrain:
      RETURN_IF_ERROR(CheckLimit("drain.timeout_ms", in.drain().timeout_ms(), 1 << 30));
      return DrainWorker{static_cast<int>(in.drain().timeout_ms())};
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("coordinator message is empty or of a kind this version lacks");
}

v1::CoordinatorMessage ToProto(const CoordinatorMessage& in) {
  v1::CoordinatorMessage out;
  std::visit(
      Overloaded{
          [&](const Welcome& welcome) {
            out.mutable_welcome()->set_protocol_version(welcome.protocol_version);
            out.mutable_welcome()->set_lease_ms(static_cast<uint32_t>(welcome.lease_ms));
            out.mutable_welcome()->set_heartbeat_ms(static_cast<uint32_t>(welcome.heartbeat_ms));
          },
          [&](const StageAssignment& assignment) { ToProto(assignment, out.mutable_load_stage()); },
          [&](const StartStage& start) {
            out.mutable_start_stage()->set_epoch(start.epoch);
            out.mutable_start_stage()->set_num_kv_blocks(start.num_kv_blocks);
          },
          [&](const StopStage& stop) {
            out.mutable_stop_stage()->set_epoch(stop.epoch);
            out.mutable_stop_stage()->set_reason(stop.reason);
          },
          [&](const DrainWorker& drain) {
            out.mutable_drain()->set_timeout_ms(static_cast<uint32_t>(drain.timeout_ms));
          },
      },
      in);
  return out;
}

absl::StatusOr<DispatchRequest> FromProto(const v1::DispatchRequest& in) {
  RETURN_IF_ERROR(
      CheckLimit("broken_epochs (entries)", static_cast<uint64_t>(in.broken_epochs_size()), 1024));
  DispatchRequest out;
  out.model = in.model();
  out.request_id = in.request_id();
  out.num_tokens = in.num_tokens();
  out.numerics_id = in.numerics_id();
  out.require_numerics = in.require_numerics();
  out.broken_epochs.assign(in.broken_epochs().begin(), in.broken_epochs().end());
  return out;
}

void ToProto(const DispatchRequest& in, v1::DispatchRequest* out) {
  out->set_model(in.model);
  out->set_request_id(in.request_id);
  out->set_num_tokens(in.num_tokens);
  out->set_numerics_id(in.numerics_id);
  out->set_require_numerics(in.require_numerics);
  out->mutable_broken_epochs()->Assign(in.broken_epochs.begin(), in.broken_epochs.end());
}

absl::StatusOr<DispatchReply> FromProto(const v1::DispatchResponse& in) {
  if (in.head_address().empty()) {
    return absl::InvalidArgumentError("dispatch response has no head_address");
  }
  RETURN_IF_ERROR(CheckLimit("dispatch.max_context", in.max_context(), kMaxTokens));
  return DispatchReply{FromProto(in.model()), in.epoch(), in.head_address(), in.numerics_id(),
                       in.max_context()};
}

void ToProto(const DispatchReply& in, v1::DispatchResponse* out) {
  ToProto(in.model, out->mutable_model());
  out->set_epoch(in.epoch);
  out->set_head_address(in.head_address);
  out->set_numerics_id(in.numerics_id);
  out->set_max_context(in.max_context);
}

absl::StatusOr<ClusterStatus> FromProto(const v1::StatusResponse& in) {
  ClusterStatus out;
  for (const v1::WorkerStatus& entry : in.workers()) {
    ASSIGN_OR_RETURN(WorkerHello hello, FromProto(entry.hello()));
    out.workers.push_back(
        {std::move(hello), entry.last_heartbeat_ms(), entry.draining(), entry.epoch()});
  }
  for (const v1::PipelineStatus& entry : in.pipelines()) {
    ASSIGN_OR_RETURN(PipelineStatus pipeline, FromProto(entry));
    out.pipelines.push_back(std::move(pipeline));
  }
  out.waiting_dispatches = in.waiting_dispatches();
  out.build_id = in.build_id();
  for (const v1::ModelInfo& entry : in.models()) {
    out.models.push_back({{entry.name(), entry.digest()},
                          entry.max_context(),
                          entry.vocab_size(),
                          entry.ready_pipelines()});
  }
  out.placement_error = in.placement_error();
  for (const v1::AvoidedLink& entry : in.avoided_links()) {
    RETURN_IF_ERROR(CheckLimit("avoided_links.failures", entry.failures(), 1 << 30));
    out.avoided_links.push_back({entry.worker_id(), entry.other_worker_id(),
                                 static_cast<int>(entry.failures()), entry.reason(),
                                 entry.retry_ms()});
  }
  return out;
}

void ToProto(const ClusterStatus& in, v1::StatusResponse* out) {
  for (const WorkerStatus& worker : in.workers) {
    v1::WorkerStatus* added = out->add_workers();
    ToProto(worker.hello, added->mutable_hello());
    added->set_last_heartbeat_ms(worker.last_heartbeat_ms);
    added->set_draining(worker.draining);
    added->set_epoch(worker.epoch);
  }
  for (const PipelineStatus& pipeline : in.pipelines) ToProto(pipeline, out->add_pipelines());
  out->set_waiting_dispatches(in.waiting_dispatches);
  out->set_build_id(in.build_id);
  for (const ServedModel& model : in.models) ToProto(model, out->add_models());
  out->set_placement_error(in.placement_error);
  for (const AvoidedLink& link : in.avoided_links) {
    v1::AvoidedLink* added = out->add_avoided_links();
    added->set_worker_id(link.worker_id);
    added->set_other_worker_id(link.other_worker_id);
    added->set_failures(static_cast<uint32_t>(link.failures));
    added->set_reason(link.reason);
    added->set_retry_ms(link.retry_ms);
  }
}

void ToProto(const ServedModel& in, v1::ModelInfo* out) {
  out->set_name(in.model.name);
  out->set_digest(in.model.digest);
  out->set_max_context(in.max_context);
  out->set_vocab_size(in.vocab_size);
  out->set_ready_pipelines(in.ready_pipelines);
}

}  // namespace sauva
