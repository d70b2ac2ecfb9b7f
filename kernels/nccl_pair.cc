#include "kernels/nccl_pair.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace sauva {

NcclPair::~NcclPair() { Abort(); }

absl::Status NcclPair::Join(const NcclId& id, int rank) {
  RETURN_IF_ERROR(memory_->Enter());
  nccl::UniqueId given;
  std::memcpy(given.internal, id.data(), id.size());
  nccl::Config config;
  config.blocking = 0;
  config.min_ctas = 1;
  config.max_ctas = 1;
  rank_ = rank;
  doing_ = Doing::kJoining;
  return nccl_.Check(nccl_.init(&communicator_, 2, given, rank, &config), "ncclCommInitRankConfig");
}

absl::Status NcclPair::Begin(int64_t num_bytes, Doing doing) {
  if (num_bytes <= 0 || num_bytes > memory_->size_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat(num_bytes, " bytes by NCCL; the buffer holds ", memory_->size_bytes()));
  }
  num_bytes_ = num_bytes;
  doing_ = doing;
  end_queued_ = false;
  return memory_->Enter();
}

absl::Status NcclPair::Send(std::span<const std::byte> bytes) {
  RETURN_IF_ERROR(Begin(static_cast<int64_t>(bytes.size()), Doing::kSending));
  RETURN_IF_ERROR(memory_->Put(bytes));
  return nccl_.Check(nccl_.send(memory_->data(), bytes.size(), nccl::kUint8, 1 - rank_,
                                communicator_, memory_->queue()),
                     "ncclSend");
}

absl::Status NcclPair::Receive(int64_t num_bytes) {
  RETURN_IF_ERROR(Begin(num_bytes, Doing::kReceiving));
  return nccl_.Check(nccl_.receive(memory_->data(), static_cast<size_t>(num_bytes), nccl::kUint8,
                                   1 - rank_, communicator_, memory_->queue()),
                     "ncclRecv");
}

// A call that is in progress has not queued its transfer yet; what shall come behind it is
// queued once it has.
absl::StatusOr<NcclPair::Progress> NcclPair::Poll() {
  RETURN_IF_ERROR(memory_->Enter());
  nccl::Result state = nccl::kInProgress;
  RETURN_IF_ERROR(nccl_.Check(nccl_.async_error(communicator_, &state), "ncclCommGetAsyncError"));
  RETURN_IF_ERROR(nccl_.Check(state, "the communicator"));
  if (state == nccl::kInProgress) return Progress::kInProgress;
  if (doing_ == Doing::kJoining) return Progress::kDone;
  if (!end_queued_) {
    RETURN_IF_ERROR(memory_->QueueEnd(doing_ == Doing::kReceiving ? num_bytes_ : 0));
    end_queued_ = true;
  }
  ASSIGN_OR_RETURN(const bool done, memory_->Done());
  return done ? Progress::kDone : Progress::kInProgress;
}

std::span<const std::byte> NcclPair::received() const {
  if (doing_ != Doing::kReceiving) return {};
  return {memory_->fetched(), static_cast<size_t>(num_bytes_)};
}

void NcclPair::Abort() {
  if (communicator_ == nullptr) return;
  if (memory_->Enter().ok()) nccl_.abort(std::exchange(communicator_, nullptr));
}

}  // namespace sauva
