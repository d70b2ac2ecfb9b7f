#include "coordinator/links.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {

absl::StatusOr<LinkPolicy> ParseLinkPolicy(const std::string& text) {
  if (text == "auto") return LinkPolicy::kAuto;
  if (text == "grpc") return LinkPolicy::kGrpc;
  if (text == "nccl") return LinkPolicy::kNccl;
  return absl::InvalidArgumentError(
      absl::StrCat("--link is ", text, "; auto, grpc or nccl expected"));
}

absl::Status CheckNcclLink(const LinkEnds& ends, const LinkFailures& failures, absl::Time now) {
  const auto& [from, to] = ends;
  const std::string link =
      absl::StrCat("no NCCL link from worker ", from.worker_id, " to ", to.worker_id, ": ");
  for (const WorkerHello* worker : {&from, &to}) {
    if (!worker->nccl.version.empty()) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(link, worker->worker_id, " has no NCCL: ", worker->nccl.error));
  }
  if (from.nccl.version != to.nccl.version) {
    return absl::FailedPreconditionError(absl::StrCat(link, "the one has NCCL ", from.nccl.version,
                                                      ", the other ", to.nccl.version));
  }
  if (from.nccl.device == to.nccl.device) {
    return absl::FailedPreconditionError(
        absl::StrCat(link, "both use ", from.nccl.device, ", and NCCL wants a GPU for each"));
  }
  if (const auto reason = failures.Avoided(from.worker_id, to.worker_id, now)) {
    return absl::FailedPreconditionError(absl::StrCat(link, *reason));
  }
  return absl::OkStatus();
}

absl::Status ChooseLinks(LinkPolicy policy, const std::vector<const WorkerHello*>& workers,
                         const LinkFailures& failures, absl::Time now,
                         std::vector<StageEndpoint>& stages) {
  Check(workers.size() == stages.size(), "a worker per stage");
  for (size_t i = 0; i + 1 < stages.size(); ++i) {
    stages[i].link = LinkKind::kGrpc;
    if (policy == LinkPolicy::kGrpc) continue;
    const absl::Status possible = CheckNcclLink({*workers[i], *workers[i + 1]}, failures, now);
    if (possible.ok()) {
      stages[i].link = LinkKind::kNccl;
    } else if (policy == LinkPolicy::kNccl) {
      return possible;
    }
  }
  return absl::OkStatus();
}

}  // namespace sauva
