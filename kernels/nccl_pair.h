#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sauva {

// What both ranks of a communicator are made with; the sender makes it.
using NcclId = std::array<char, 128>;

// One end of the way between two neighbouring stages: a non-blocking communicator of two
// ranks, rank 0 sending to rank 1, with one buffer in device memory. No call waits: what is
// begun is asked after with Poll, and may be aborted at any time. One thing is in progress
// at most.
// Errors: UNAVAILABLE with what NCCL or the device says; the communicator is then good for
// Abort only.
// Thread: its owner's.
class NcclPair {
 public:
  enum class Progress { kInProgress, kDone };

  virtual ~NcclPair() = default;

  virtual absl::StatusOr<NcclId> MakeId() = 0;
  // Begins to join the other rank.
  virtual absl::Status Join(const NcclId& id, int rank) = 0;
  // Begins to send values, which are copied, or to receive `count` of them; no more than the
  // buffer holds.
  virtual absl::Status Send(std::span<const float> values) = 0;
  virtual absl::Status Receive(int64_t count) = 0;
  // Of what was begun last.
  virtual absl::StatusOr<Progress> Poll() = 0;
  // What was received; valid until the next call.
  virtual std::span<const float> received() const = 0;
  // Gives the communicator up, whatever it is doing; another may be joined.
  virtual void Abort() = 0;
};

// `buffer_floats`: of the largest step. NCCL is opened when first asked for, and its limits
// for two ranks (one channel, 1 MiB of buffers) are set unless the environment says others.
// Errors: FAILED_PRECONDITION without CUDA in the build or a libnccl.so.2 on the machine;
// those of kernels/cuda_access.h.
absl::StatusOr<std::unique_ptr<NcclPair>> OpenNcclPair(int device_index, int64_t buffer_floats);

}  // namespace sauva
