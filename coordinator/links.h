#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/link_failures.h"
#include "proto/control.h"

// How hidden states go between the stages of a pipeline.
namespace sauva {

enum class LinkPolicy { kAuto, kGrpc, kNccl };

// "auto", "grpc" or "nccl". Errors: INVALID_ARGUMENT.
absl::StatusOr<LinkPolicy> ParseLinkPolicy(const std::string& text);

// Two that NCCL may connect, or not.
struct LinkEnds {
  const WorkerHello& from;
  const WorkerHello& to;
};

// Whether two workers can have a link by NCCL: both have it, of one version, it moves memory of
// two devices, and it has not failed to connect them again and again.
// Errors: FAILED_PRECONDITION naming both workers and what is in the way.
absl::Status CheckNcclLink(const LinkEnds& ends, const LinkFailures& failures, absl::Time now);

// Sets the link of each stage but the last; `workers` are those of the stages, in order. With
// kAuto a link is by NCCL where it can be.
// Errors: as CheckNcclLink, with kNccl.
absl::Status ChooseLinks(LinkPolicy policy, const std::vector<const WorkerHello*>& workers,
                         const LinkFailures& failures, absl::Time now,
                         std::vector<StageEndpoint>& stages);

}  // namespace sauva
