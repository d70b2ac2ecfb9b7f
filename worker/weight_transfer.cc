#include "worker/weight_transfer.h"

#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<NcclPair>> OpenWeightPair(const NcclAccess& nccl) {
  return OpenNcclPair(nccl, kWeightPieceBytes);
}

absl::Status AwaitNccl(NcclPair& pair, absl::Duration timeout,
                       const std::function<bool()>& cancelled) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (!cancelled()) {
    ASSIGN_OR_RETURN(const NcclPair::Progress progress, pair.Poll());
    if (progress == NcclPair::Progress::kDone) return absl::OkStatus();
    if (std::chrono::steady_clock::now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("NCCL: nothing moved within ", absl::FormatDuration(timeout)));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return absl::CancelledError("the other worker ended the transfer");
}

}  // namespace sauva
