#pragma once

#include <variant>

#include "absl/status/statusor.h"
#include "proto/control.h"
#include "sauva/v1/control.pb.h"

// Translates the words of the control plane and checks what comes in, once.
namespace sauva {

inline constexpr int kMaxStages = 1024;

using WorkerMessage = std::variant<WorkerHello, Heartbeat, StageReport, StageBroken>;
using CoordinatorMessage = std::variant<Welcome, StageAssignment, StartStage, StopStage, DrainWorker>;

// Errors: INVALID_ARGUMENT naming the field and the value found.
absl::StatusOr<WorkerMessage> FromProto(const v1::WorkerMessage& in);
v1::WorkerMessage ToProto(const WorkerMessage& in);

absl::StatusOr<CoordinatorMessage> FromProto(const v1::CoordinatorMessage& in);
v1::CoordinatorMessage ToProto(const CoordinatorMessage& in);

absl::StatusOr<DispatchRequest> FromProto(const v1::DispatchRequest& in);
void ToProto(const DispatchRequest& in, v1::DispatchRequest* out);

absl::StatusOr<DispatchReply> FromProto(const v1::DispatchResponse& in);
void ToProto(const DispatchReply& in, v1::DispatchResponse* out);

absl::StatusOr<ClusterStatus> FromProto(const v1::StatusResponse& in);
void ToProto(const ClusterStatus& in, v1::StatusResponse* out);

void ToProto(const ServedModel& in, v1::ModelInfo* out);

}  // namespace sauva
