#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/nccl_pair.h"
#include "proto/stage.h"

namespace sauva {

// --- Events. A step that the other end announced on the link's stream is HiddenAnnounced, a
// step to be sent is HiddenStates.

// An epoch begins in which this end sends to the next stage, or receives from the one before.
struct NcclStarted {
  uint64_t epoch = 0;
  NcclId id{};  // the same at both ends; the one that sends makes it
  bool sends = false;
  size_t max_values = 0;  // of a step
};
// The pair's answer to what was begun, or why it could not be.
struct NcclPolled {
  uint64_t epoch = 0;
  absl::StatusOr<NcclPair::Progress> progress;
  std::vector<float> received;  // when a receive is done
};
// The epoch is over.
struct NcclStopped {};
struct NcclTick {};
using NcclEvent =
    std::variant<NcclStarted, NcclPolled, HiddenAnnounced, HiddenStates, NcclStopped, NcclTick>;

// --- Effects.

struct JoinNccl {
  uint64_t epoch = 0;
  NcclId id{};
  int rank = 0;
};
struct PollNccl {
  uint64_t epoch = 0;
};
struct BeginNcclSend {
  HiddenStates states;
};
struct BeginNcclReceive {
  uint64_t epoch = 0;
  uint64_t num_values = 0;
};
struct AbortNccl {};
// Whose failure it is that a link is lost.
enum class NcclFault {
  kOwn,   // a call of this end failed, or its worker asked for what makes no sense
  kPeer,  // the other end went away, stands still or said what makes no sense
};
// Both ends have joined.
struct NcclJoined {
  uint64_t epoch = 0;
};
// HiddenAnnounced goes to the other end by gRPC, HiddenStates to the stage session. After
// NcclLost the session holds nothing until it is started again.
struct NcclLost {
  uint64_t epoch = 0;
  NcclFault fault = NcclFault::kPeer;
  std::string reason;
};
using NcclEffect = std::variant<JoinNccl, PollNccl, BeginNcclSend, BeginNcclReceive, AbortNccl,
                                NcclJoined, HiddenAnnounced, HiddenStates, NcclLost>;
using NcclEffects = std::vector<NcclEffect>;

struct NcclOptions {
  absl::Duration join_timeout = absl::Seconds(30);
  absl::Duration step_timeout = absl::Seconds(10);  // of one transfer, from its announcement
  absl::Duration poll_interval = absl::Microseconds(50);
  size_t max_waiting_steps = 64;
};

// One end of an NCCL link as a state machine. NCCL has no time-outs and never returns from a
// peer that died in mid-collective; so nothing here waits: what is in progress is polled,
// has a deadline, and is aborted when that passes, when NCCL reports an error or when the
// epoch ends. The next epoch joins a new communicator. The sender announces each step by
// gRPC before it sends the tensor, so that the receiver knows how much comes, and when.
//
// Thread: its owner's. Pure: no clock, no I/O.
class NcclSession {
 public:
  explicit NcclSession(const NcclOptions& options) : options_(options) {}

  NcclEffects OnEvent(NcclEvent event, absl::Time now);

  // When the session wants an NcclTick at the latest.
  absl::Time NextDeadline() const;

  uint64_t epoch() const { return epoch_; }
  bool joined() const { return phase_ == Phase::kIdle || phase_ == Phase::kTransferring; }
  size_t num_waiting() const { return to_send_.size() + to_receive_.size(); }
  uint64_t num_stale() const { return num_stale_; }

 private:
  // kStopped: no epoch, or it broke. kIdle: joined, nothing to do.
  enum class Phase { kStopped, kJoining, kIdle, kTransferring };

  void Handle(NcclStarted event);
  void Handle(NcclPolled event);
  void Handle(HiddenAnnounced event);
  void Handle(HiddenStates event);
  void Handle(NcclStopped event);
  void Handle(NcclTick event);

  bool IsCurrent(uint64_t epoch);
  void Finish(NcclPolled& event);
  void BeginNext();
  void Lose(NcclFault fault, const std::string& reason);
  void Forget();

  const NcclOptions options_;
  Phase phase_ = Phase::kStopped;
  uint64_t epoch_ = 0;
  bool sends_ = false;
  bool has_communicator_ = false;
  size_t max_values_ = 0;
  uint64_t last_step_ = 0;  // queued for sending, or announced
  uint64_t moving_step_ = 0;
  uint64_t moving_values_ = 0;
  std::deque<HiddenStates> to_send_;
  std::deque<HiddenAnnounced> to_receive_;
  bool polling_ = false;  // an answer to PollNccl is on its way
  absl::Time deadline_ = absl::InfiniteFuture();
  absl::Time next_poll_ = absl::InfiniteFuture();
  uint64_t num_stale_ = 0;
  absl::Time now_;
  NcclEffects effects_;  // set for the time of one OnEvent
};

}  // namespace sauva
