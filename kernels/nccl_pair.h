#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/nccl_library.h"
#include "kernels/transfer_memory.h"

namespace sauva {

// What a communicator of two ranks takes of a GPU beside the buffer that is moved: NCCL's own
// buffers of one channel each way. An allowance, not a measurement.
inline constexpr int64_t kNcclCommunicatorBytes = int64_t{16} << 20;

// One end of the way between two processes: a non-blocking communicator of two ranks with
// one buffer. No call waits: what is begun is asked after with Poll, and may be aborted at any
// time. One thing is in progress at most.
// Errors: UNAVAILABLE where NCCL says that the other rank went away, INTERNAL with what NCCL or
// the device says of this end; the communicator is then good for Abort only. INVALID_ARGUMENT
// for more bytes than the buffer holds.
// Thread: its owner's, one thread from Join on.
class NcclPair {
 public:
  enum class Progress { kInProgress, kDone };

  NcclPair(const NcclLibrary& nccl, std::unique_ptr<TransferMemory> memory)
      : nccl_(nccl), memory_(std::move(memory)) {}
  // Aborts.
  ~NcclPair();
  NcclPair(const NcclPair&) = delete;
  NcclPair& operator=(const NcclPair&) = delete;

  // Begins to join the other rank, of 0 and 1.
  absl::Status Join(const NcclId& id, int rank);
  // Begins to send bytes, which are copied, or to receive so many.
  absl::Status Send(std::span<const std::byte> bytes);
  absl::Status Receive(int64_t num_bytes);
  // Of what was begun last.
  absl::StatusOr<Progress> Poll();
  // What was received; valid until the next call.
  std::span<const std::byte> received() const;
  // Gives the communicator up, whatever it is doing; another may be joined.
  void Abort();

 private:
  enum class Doing { kNothing, kJoining, kSending, kReceiving };

  absl::Status Begin(int64_t num_bytes, Doing doing);

  const NcclLibrary nccl_;
  const std::unique_ptr<TransferMemory> memory_;
  nccl::Communicator* communicator_ = nullptr;
  int rank_ = 0;
  Doing doing_ = Doing::kNothing;
  int64_t num_bytes_ = 0;
  bool end_queued_ = false;  // of what was begun last
};

}  // namespace sauva
