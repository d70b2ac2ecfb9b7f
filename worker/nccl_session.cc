#include "worker/nccl_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sauva {

NcclEffects NcclSession::OnEvent(NcclEvent event, absl::Time now) {
  now_ = now;
  std::visit([this](auto& e) { Handle(std::move(e)); }, event);
  return std::exchange(effects_, {});
}

absl::Time NcclSession::NextDeadline() const { return std::min(deadline_, next_poll_); }

bool NcclSession::IsCurrent(uint64_t epoch) {
  if (phase_ != Phase::kStopped && epoch == epoch_) return true;
  ++num_stale_;
  return false;
}

void NcclSession::Handle(NcclStarted event) {
  if (event.epoch <= epoch_) {
    ++num_stale_;
    return;
  }
  Forget();
  phase_ = Phase::kJoining;
  epoch_ = event.epoch;
  sends_ = event.sends;
  max_values_ = event.max_values;
  has_communicator_ = true;
  deadline_ = now_ + options_.join_timeout;
  next_poll_ = now_ + options_.poll_interval;
  effects_.push_back(JoinNccl{.epoch = epoch_, .id = event.id, .rank = sends_ ? 0 : 1});
}

void NcclSession::Handle(HiddenStates event) {
  if (!IsCurrent(event.epoch)) return;
  if (!sends_ || event.step_id != last_step_ + 1) {
    return Lose(NcclFault::kOwn,
                absl::StrCat("step ", event.step_id, " was to be sent after step ", last_step_));
  }
  if (event.values.empty() || event.values.size() > max_values_) {
    return Lose(NcclFault::kOwn, absl::StrCat("step ", event.step_id, " has ", event.values.size(),
                                              " values; allowed are 1 to ", max_values_));
  }
  if (to_send_.size() >= options_.max_waiting_steps) {
    return Lose(NcclFault::kPeer, absl::StrCat(to_send_.size(), " steps wait to be sent"));
  }
  last_step_ = event.step_id;
  to_send_.push_back(std::move(event));
  BeginNext();
}

void NcclSession::Handle(HiddenAnnounced event) {
  if (!IsCurrent(event.epoch)) return;
  if (sends_ || event.step_id != last_step_ + 1) {
    return Lose(NcclFault::kPeer,
                absl::StrCat("step ", event.step_id, " was announced after step ", last_step_));
  }
  if (event.num_values == 0 || event.num_values > max_values_) {
    return Lose(NcclFault::kPeer,
                absl::StrCat("step ", event.step_id, " is announced with ", event.num_values,
                             " values; allowed are 1 to ", max_values_));
  }
  if (to_receive_.size() >= options_.max_waiting_steps) {
    return Lose(NcclFault::kPeer, absl::StrCat(to_receive_.size(), " announced steps wait"));
  }
  last_step_ = event.step_id;
  to_receive_.push_back(event);
  BeginNext();
}

void NcclSession::BeginNext() {
  if (phase_ != Phase::kIdle) return;
  if (sends_ && !to_send_.empty()) {
    HiddenStates states = std::move(to_send_.front());
    to_send_.pop_front();
    moving_step_ = states.step_id;
    moving_values_ = states.values.size();
    effects_.push_back(HiddenAnnounced{epoch_, moving_step_, moving_values_});
    effects_.push_back(BeginNcclSend{std::move(states)});
  } else if (!sends_ && !to_receive_.empty()) {
    moving_step_ = to_receive_.front().step_id;
    moving_values_ = to_receive_.front().num_values;
    to_receive_.pop_front();
    effects_.push_back(BeginNcclReceive{epoch_, moving_values_});
  } else {
    return;
  }
  phase_ = Phase::kTransferring;
  deadline_ = now_ + options_.step_timeout;
  next_poll_ = now_ + options_.poll_interval;
}

void NcclSession::Handle(NcclPolled event) {
  if (!IsCurrent(event.epoch)) return;
  polling_ = false;
  if (const absl::Status& status = event.progress.status(); !status.ok()) {
    return Lose(absl::IsUnavailable(status) ? NcclFault::kPeer : NcclFault::kOwn,
                std::string(status.message()));
  }
  if (*event.progress == NcclPair::Progress::kInProgress) {
    // Asked again soon; only while joined and idle there is nothing to ask after.
    next_poll_ = phase_ == Phase::kIdle ? absl::InfiniteFuture() : now_ + options_.poll_interval;
    return;
  }
  if (phase_ == Phase::kTransferring) Finish(event);
  if (phase_ == Phase::kStopped) return;  // what came made no sense
  if (phase_ == Phase::kJoining) effects_.push_back(NcclJoined{epoch_});
  phase_ = Phase::kIdle;
  deadline_ = absl::InfiniteFuture();
  next_poll_ = absl::InfiniteFuture();
  BeginNext();
}

void NcclSession::Finish(NcclPolled& event) {
  if (sends_) return;
  if (event.received.size() != moving_values_) {
    return Lose(NcclFault::kPeer,
                absl::StrCat("step ", moving_step_, " came with ", event.received.size(), " of ",
                             moving_values_, " values"));
  }
  effects_.push_back(HiddenStates{epoch_, moving_step_, std::move(event.received)});
}

void NcclSession::Handle(NcclStopped) {
  Forget();
  phase_ = Phase::kStopped;
}

void NcclSession::Handle(NcclTick) {
  if (now_ >= deadline_) {
    return Lose(NcclFault::kPeer, phase_ == Phase::kTransferring
                                      ? absl::StrCat("step ", moving_step_, " did not pass within ",
                                                     absl::FormatDuration(options_.step_timeout))
                                      : absl::StrCat("the peer did not join within ",
                                                     absl::FormatDuration(options_.join_timeout)));
  }
  if (now_ < next_poll_ || polling_) return;
  polling_ = true;
  next_poll_ = absl::InfiniteFuture();  // set again by the answer
  effects_.push_back(PollNccl{epoch_});
}

// It is told before it is aborted, which the other end notices: what happened here first is
// heard of first.
void NcclSession::Lose(NcclFault fault, const std::string& reason) {
  phase_ = Phase::kStopped;
  effects_.push_back(NcclLost{epoch_, fault, absl::StrCat("NCCL: ", reason)});
  Forget();
}

// Gives up what is in progress. A communicator is aborted even when it is idle: the other
// end may be gone, and only abort never waits for it.
void NcclSession::Forget() {
  if (has_communicator_) effects_.push_back(AbortNccl{});
  has_communicator_ = false;
  to_send_.clear();
  to_receive_.clear();
  last_step_ = 0;
  polling_ = false;
  deadline_ = absl::InfiniteFuture();
  next_poll_ = absl::InfiniteFuture();
}

}  // namespace sauva
