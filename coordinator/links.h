#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/control.h"

// How hidden states go between the stages of a pipeline.
namespace sauva {

enum class LinkPolicy { kAuto, kGrpc, kNccl };

// "auto", "grpc" or "nccl". Errors: INVALID_ARGUMENT.
absl::StatusOr<LinkPolicy> ParseLinkPolicy(const std::string& text);

// Whether two neighbours can have a link by NCCL: both have it, of one version, and it moves
// memory of two devices.
// Errors: FAILED_PRECONDITION naming both workers and what is in the way.
absl::Status CheckNcclLink(const WorkerHello& from, const WorkerHello& to);

// Sets the link of each stage but the last; `workers` are those of the stages, in order. With
// kAuto a link is by NCCL where it can be.
// Errors: as CheckNcclLink, with kNccl.
absl::Status ChooseLinks(LinkPolicy policy, const std::vector<const WorkerHello*>& workers,
                         std::vector<StageEndpoint>& stages);

}  // namespace sauva
