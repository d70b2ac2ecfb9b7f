#include "worker/pipeline_links.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {

std::vector<OpenOutgoing> PipelineLinks::Start(const StageAssignment& assignment,
                                               absl::Duration give_up_after, absl::Time now) {
  Check(streams_.empty(), "streams of the last epoch were closed");
  assignment_ = assignment;
  give_up_at_ = now + give_up_after;
  const int num_stages = static_cast<int>(assignment.stages.size());
  if (!assignment.is_last()) {
    streams_[++last_id_] = {.kind = PeerKind::kLink, .stage_index = assignment.stage_index + 1};
  }
  for (int stage = 1; assignment.is_head() && stage < num_stages; ++stage) {
    streams_[++last_id_] = {.kind = PeerKind::kControl, .stage_index = stage};
  }
  std::vector<OpenOutgoing> opened;
  for (const auto& [id, stream] : streams_) opened.push_back(Open(id, stream));
  return opened;
}

std::vector<CloseOutgoing> PipelineLinks::Stop() {
  std::vector<CloseOutgoing> closed;
  for (const auto& [id, stream] : streams_) {
    if (stream.state != State::kWaiting) closed.push_back({id});
  }
  streams_.clear();
  return closed;
}

std::optional<PipelineLinks::Lost> PipelineLinks::OnAccepted(OutgoingId id,
                                                             const StageHello& hello) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return std::nullopt;
  Stream& stream = found->second;
  if (stream.state != State::kConnecting || hello.epoch != assignment_.epoch ||
      hello.from_stage != stream.stage_index || hello.numerics_id != assignment_.numerics_id) {
    return LostStream(stream, absl::StrCat("it answered as stage ", hello.from_stage, " of epoch ",
                                           hello.epoch, " with numerics ", hello.numerics_id));
  }
  stream.state = State::kAccepted;
  return std::nullopt;
}

std::optional<PipelineLinks::Lost> PipelineLinks::OnClosed(OutgoingId id,
                                                           const absl::Status& status,
                                                           absl::Time now) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return std::nullopt;
  Stream& stream = found->second;
  if (stream.state == State::kConnecting && absl::IsUnavailable(status)) {
    stream.state = State::kWaiting;
    stream.retry_at = now + stream.backoff;
    stream.backoff = std::min(stream.backoff * 2, kLastBackoff);
    stream.last_error = std::string(status.message());
    return std::nullopt;
  }
  Lost lost = LostStream(stream, absl::StrCat("its stream ended: ", status.ToString()));
  if (absl::IsAborted(status)) lost.suspect_worker_id.clear();
  return lost;
}

std::vector<OpenOutgoing> PipelineLinks::OnTick(absl::Time now, std::optional<Lost>& lost) {
  std::vector<OpenOutgoing> opened;
  if (all_accepted()) return opened;
  if (now >= give_up_at_) {
    const auto late = std::find_if(streams_.begin(), streams_.end(), [](const auto& entry) {
      return entry.second.state != State::kAccepted;
    });
    lost = LostStream(late->second,
                      absl::StrCat("it did not start in time: ", late->second.last_error));
    if (late->second.kind == PeerKind::kLink && assignment_.sends_by_nccl()) {
      lost->nccl_link = assignment_.stage_index;
    }
    return opened;
  }
  std::vector<OutgoingId> due;
  for (const auto& [id, stream] : streams_) {
    if (stream.state == State::kWaiting && now >= stream.retry_at) due.push_back(id);
  }
  for (const OutgoingId id : due) {
    Stream stream = std::move(streams_.extract(id).mapped());
    stream.state = State::kConnecting;
    opened.push_back(Open(++last_id_, stream));
    streams_.emplace(last_id_, std::move(stream));
  }
  return opened;
}

bool PipelineLinks::all_accepted() const {
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& entry) { return entry.second.state == State::kAccepted; });
}

std::optional<OutgoingId> PipelineLinks::link() const {
  for (const auto& [id, stream] : streams_) {
    if (stream.kind == PeerKind::kLink && stream.state == State::kAccepted) return id;
  }
  return std::nullopt;
}

std::vector<OutgoingId> PipelineLinks::controls() const {
  std::vector<OutgoingId> ids;
  for (const auto& [id, stream] : streams_) {
    if (stream.kind == PeerKind::kControl) ids.push_back(id);
  }
  return ids;
}

absl::Time PipelineLinks::NextDeadline() const {
  if (all_accepted()) return absl::InfiniteFuture();
  absl::Time next = give_up_at_;
  for (const auto& [id, stream] : streams_) {
    if (stream.state == State::kWaiting) next = std::min(next, stream.retry_at);
  }
  return next;
}

OpenOutgoing PipelineLinks::Open(OutgoingId id, const Stream& stream) const {
  const bool by_nccl = stream.kind == PeerKind::kLink && assignment_.sends_by_nccl();
  return {.id = id,
          .kind = stream.kind,
          .address = assignment_.stages[static_cast<size_t>(stream.stage_index)].address,
          .hello = {.epoch = assignment_.epoch,
                    .from_stage = assignment_.stage_index,
                    .to_stage = stream.stage_index,
                    .numerics_id = assignment_.numerics_id,
                    .protocol_version = kProtocolVersion},
          .link = by_nccl ? LinkKind::kNccl : LinkKind::kGrpc};
}

PipelineLinks::Lost PipelineLinks::LostStream(const Stream& stream,
                                              const std::string& reason) const {
  const std::string& worker = assignment_.stages[static_cast<size_t>(stream.stage_index)].worker_id;
  return {.suspect_worker_id = worker,
          .reason = absl::StrCat("stage ", stream.stage_index, " (", worker, "): ", reason)};
}

}  // namespace sauva
