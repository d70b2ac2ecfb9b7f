#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/control.h"
#include "proto/stage.h"
#include "worker/session_types.h"

namespace sauva {

enum class PeerKind { kControl, kLink };

// A Control or Link stream that this worker opens; numbered by its session, never used
// twice.
using OutgoingId = uint64_t;

struct OpenOutgoing {
  OutgoingId id = 0;
  PeerKind kind = PeerKind::kLink;
  std::string address;
  StageHello hello;
  LinkKind link = LinkKind::kGrpc;  // how a Link's hidden states go
  size_t max_hidden_values = 0;     // of one step of a Link
};
struct CloseOutgoing {
  OutgoingId id = 0;
};

// The streams a stage opens to the others of its pipeline: a Link to the next stage and,
// on the head, a Control to every other one. A peer that answers UNAVAILABLE has not
// started the epoch yet and is asked again with back-off.
//
// Thread: its owner's. Pure: no clock, no I/O.
class PipelineLinks {
 public:
  static constexpr absl::Duration kFirstBackoff = absl::Milliseconds(20);
  static constexpr absl::Duration kLastBackoff = absl::Milliseconds(500);

  // Begins to connect; `give_up_after` counts from now.
  std::vector<OpenOutgoing> Start(const StageAssignment& assignment, absl::Duration give_up_after,
                                  absl::Time now);

  // Forgets all streams and returns what must be closed.
  std::vector<CloseOutgoing> Stop();

  // Why the epoch cannot go on.
  struct Lost {
    std::string suspect_worker_id;  // who is in the way; empty when a peer ended the epoch itself
    std::string reason;
    std::optional<int> nccl_link = std::nullopt;  // that failed: the stage that sends on it
  };

  // A stream was accepted; unknown ids are streams of an epoch that is over.
  std::optional<Lost> OnAccepted(OutgoingId id, const StageHello& hello);
  // A stream ended: asked again later while it was never accepted, else lost.
  std::optional<Lost> OnClosed(OutgoingId id, const absl::Status& status, absl::Time now);
  // Streams whose back-off is over, under new ids. `lost` is set when time is up.
  std::vector<OpenOutgoing> OnTick(absl::Time now, std::optional<Lost>& lost);

  bool all_accepted() const;
  bool Knows(OutgoingId id) const { return streams_.contains(id); }
  // Stage at the other end; the id must be known.
  int StageOf(OutgoingId id) const { return streams_.at(id).stage_index; }
  std::optional<OutgoingId> link() const;
  std::vector<OutgoingId> controls() const;
  absl::Time NextDeadline() const;

 private:
  enum class State { kConnecting, kWaiting, kAccepted };
  struct Stream {
    PeerKind kind = PeerKind::kLink;
    int stage_index = 0;
    State state = State::kConnecting;
    absl::Duration backoff = kFirstBackoff;
    absl::Time retry_at = absl::InfinitePast();
    std::string last_error = "no answer";
  };

  OpenOutgoing Open(OutgoingId id, const Stream& stream) const;
  Lost LostStream(const Stream& stream, const std::string& reason) const;

  StageAssignment assignment_;
  std::map<OutgoingId, Stream> streams_;
  OutgoingId last_id_ = 0;
  absl::Time give_up_at_;
};

}  // namespace sauva
