#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/nccl_pair.h"
#include "worker/nccl_end.h"

// Weights on their way from one worker to another by NCCL: tensors in pieces, one after the
// other.
namespace sauva {

inline constexpr int64_t kWeightPieceBytes = int64_t{8} << 20;

// What a worker that may send weights keeps free for it on its device.
inline constexpr int64_t kDonationBytes = kWeightPieceBytes + kNcclCommunicatorBytes;

// A pair with a buffer of one piece. Errors: FAILED_PRECONDITION without NCCL; those of
// MakeTransferMemory.
absl::StatusOr<std::unique_ptr<NcclPair>> OpenWeightPair(const NcclAccess& nccl);

// Asks until what was begun is done. Errors: CANCELLED once `cancelled` says so;
// DEADLINE_EXCEEDED; what the pair says.
absl::Status AwaitNccl(NcclPair& pair, absl::Duration timeout,
                       const std::function<bool()>& cancelled);

}  // namespace sauva
