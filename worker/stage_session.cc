#include "worker/stage_session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

template <class... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

}  // namespace

StageEffects StageSession::OnEvent(StageEvent event) {
  std::visit([this](auto& e) { Handle(std::move(e)); }, event);
  GiveWork();
  return std::exchange(effects_, {});
}

void StageSession::Handle(StageStarted event) {
  Check(!started_, "a stage starts an epoch after the last one ended");
  started_ = true;
  assignment_ = std::move(event.assignment);
  facts_ = std::move(event.facts);
  num_kv_blocks_ = event.num_kv_blocks;
  counters_ = {.stale_messages = counters_.stale_messages};
}

void StageSession::Handle(OpenSequence event) {
  if (!started_) {
    ++counters_.stale_messages;
    return;
  }
  const int limit = kMaxControlPerSequence * assignment_.max_sequences;
  if (!open_.contains(event.id) && num_open_sequences() >= limit) {
    return Fault(Wrong("sequence ", event.id, " would be the ", limit + 1, "th one open"),
                 worker_of(0));
  }
  if (event.tokens.empty() || event.tokens.size() > static_cast<size_t>(facts_.max_context)) {
    return Fault(Wrong("sequence ", event.id, " opens with ", event.tokens.size(),
                       " tokens; allowed are 1 to ", facts_.max_context),
                 worker_of(0));
  }
  open_.insert(event.id);
  Hold(std::move(event));
}

void StageSession::Handle(CloseSequence event) {
  if (!started_) {
    ++counters_.stale_messages;
    return;
  }
  if (open_.erase(event.id) == 0) {
    return Fault(Wrong("sequence ", event.id, " is closed but was not open"), worker_of(0));
  }
  Hold(event);
}

void StageSession::Handle(StepHeader event) {
  if (!started_ || event.epoch != assignment_.epoch) {
    ++counters_.stale_messages;
    return;
  }
  if (const absl::Status status = CheckHeader(event); !status.ok()) {
    return Fault(status, worker_of(0));
  }
  last_header_id_ = event.step_id;
  ++num_pending_steps_;
  Hold(std::move(event));
}

absl::Status StageSession::CheckHeader(const StepHeader& header) const {
  if (header.step_id != last_header_id_ + 1) {
    return Wrong("step ", header.step_id, " follows step ", last_header_id_);
  }
  if (num_pending_steps_ >= max_held_steps()) {
    return Wrong("step ", header.step_id, " while ", num_pending_steps_, " steps wait; limit ",
                 max_held_steps());
  }
  if (header.sequences.empty() ||
      header.sequences.size() > static_cast<size_t>(assignment_.max_sequences)) {
    return Wrong("step ", header.step_id, " has ", header.sequences.size(),
                 " sequences; allowed are 1 to ", assignment_.max_sequences);
  }
  size_t num_tokens = 0;
  std::set<SequenceId> seen;
  for (const SequenceStep& step : header.sequences) {
    if (!seen.insert(step.id).second) {
      return Wrong("step ", header.step_id, " names sequence ", step.id, " twice");
    }
    RETURN_IF_ERROR(CheckSequenceStep(step));
    num_tokens += step.tokens.size();
  }
  if (num_tokens > static_cast<size_t>(assignment_.max_step_tokens)) {
    return Wrong("step ", header.step_id, " has ", num_tokens, " tokens; limit ",
                 assignment_.max_step_tokens);
  }
  return absl::OkStatus();
}

absl::Status StageSession::CheckSequenceStep(const SequenceStep& step) const {
  if (!open_.contains(step.id)) return Wrong("sequence ", step.id, " is not open");
  const size_t context = static_cast<size_t>(facts_.max_context);
  if (step.first_position < 0 || step.tokens.empty() || step.tokens.size() > context ||
      static_cast<size_t>(step.first_position) > context - step.tokens.size()) {
    return Wrong("sequence ", step.id, " has ", step.tokens.size(), " tokens from position ",
                 step.first_position, "; the context is ", facts_.max_context);
  }
  for (const TokenId token : step.tokens) {
    if (token < 0 || token >= facts_.vocab_size) {
      return Wrong("sequence ", step.id, " has token ", token, "; the vocabulary has ",
                   facts_.vocab_size);
    }
  }
  for (const BlockDelta& delta : step.blocks) {
    if (delta.kv_group >= static_cast<uint32_t>(facts_.num_kv_groups)) {
      return Wrong("sequence ", step.id, " names KV group ", delta.kv_group, " of ",
                   facts_.num_kv_groups);
    }
    for (const BlockId block : delta.appended) {
      if (block < 0 || static_cast<uint32_t>(block) >= num_kv_blocks_) {
        return Wrong("sequence ", step.id, " names block ", block, " of ", num_kv_blocks_);
      }
    }
  }
  return absl::OkStatus();
}

void StageSession::Handle(HiddenStates event) {
  if (!started_ || event.epoch != assignment_.epoch) {
    ++counters_.stale_messages;
    return;
  }
  if (const absl::Status status = CheckHidden(event); !status.ok()) {
    return Fault(status, assignment_.is_head() ? "" : worker_of(assignment_.stage_index - 1));
  }
  last_hidden_id_ = event.step_id;
  hidden_.push_back(std::move(event));
}

absl::Status StageSession::CheckHidden(const HiddenStates& hidden) const {
  if (assignment_.is_head()) return Wrong("the first stage takes no hidden states");
  if (hidden.step_id != last_hidden_id_ + 1) {
    return Wrong("hidden states of step ", hidden.step_id, " follow those of step ",
                 last_hidden_id_);
  }
  if (num_held_hidden() >= max_held_steps()) {
    return Wrong("hidden states of ", num_held_hidden(), " steps wait; limit ", max_held_steps());
  }
  const size_t hidden_size = static_cast<size_t>(facts_.hidden_size);
  const size_t limit = hidden_size * static_cast<size_t>(assignment_.max_step_tokens);
  if (hidden.values.empty() || hidden.values.size() % hidden_size != 0 ||
      hidden.values.size() > limit) {
    return Wrong("hidden states of step ", hidden.step_id, " are ", hidden.values.size(),
                 " values; a multiple of ", hidden_size, " up to ", limit, " was expected");
  }
  return absl::OkStatus();
}

void StageSession::Handle(StepComputed event) {
  if (!started_ || event.epoch != assignment_.epoch) return;  // of an epoch that is over
  Check(computing_ && computing_->step_id == event.step_id, "the engine does what it was given");
  absl::Status status = event.status;
  if (status.ok()) status = CheckOutput(event);
  const int num_tokens = computing_->num_tokens;
  computing_.reset();
  if (!status.ok()) {
    // The engine refuses what a correct head never sends.
    return Fault(status, status.code() == absl::StatusCode::kInvalidArgument
                             ? worker_of(0)
                             : worker_of(assignment_.stage_index));
  }
  ++counters_.steps_done;
  counters_.tokens_done += static_cast<uint64_t>(num_tokens);
  counters_.step_seconds += event.compute_seconds;
  if (!assignment_.is_last()) {
    effects_.push_back(HiddenStates{event.epoch, event.step_id, std::move(event.hidden)});
  }
  effects_.push_back(StepResult{.epoch = event.epoch,
                                .step_id = event.step_id,
                                .sampled = std::move(event.sampled),
                                .compute_seconds = event.compute_seconds});
}

absl::Status StageSession::CheckOutput(const StepComputed& step) const {
  const size_t expected = assignment_.is_last() ? 0
                                                : static_cast<size_t>(facts_.hidden_size) *
                                                      static_cast<size_t>(computing_->num_tokens);
  if (step.hidden.size() == expected) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("step ", step.step_id, " left ", step.hidden.size(),
                                          " hidden values; ", expected, " were expected"));
}

void StageSession::Handle(OpenFailed event) {
  if (!started_ || event.epoch != assignment_.epoch) return;
  Fault(event.status, worker_of(0));
}

void StageSession::Handle(StageStopped) {
  started_ = false;
  Forget();
}

void StageSession::Hold(Pending pending) {
  const size_t limit =
      static_cast<size_t>(max_held_steps()) +
      static_cast<size_t>(kMaxControlPerSequence) * static_cast<size_t>(assignment_.max_sequences);
  if (pending_.size() >= limit) {
    return Fault(Wrong(pending_.size(), " messages wait for the engine; limit ", limit),
                 worker_of(0));
  }
  pending_.push_back(std::move(pending));
}

// Hands on what is next until a step is being computed or lacks its hidden states.
void StageSession::GiveWork() {
  while (started_ && !computing_ && !pending_.empty()) {
    Pending& next = pending_.front();
    if (StepHeader* header = std::get_if<StepHeader>(&next)) {
      if (!GiveStep(*header)) return;
    } else if (OpenSequence* open = std::get_if<OpenSequence>(&next)) {
      effects_.push_back(std::move(*open));
    } else {
      effects_.push_back(std::get<CloseSequence>(next));
    }
    if (started_) pending_.pop_front();
  }
}

// False while the step's hidden states are missing.
bool StageSession::GiveStep(StepHeader& header) {
  ComputeStep compute;
  const int num_tokens = header.num_tokens();
  if (!assignment_.is_head()) {
    if (hidden_.empty()) return false;
    Check(hidden_.front().step_id == header.step_id, "both come in order without gaps");
    const size_t expected =
        static_cast<size_t>(num_tokens) * static_cast<size_t>(facts_.hidden_size);
    if (hidden_.front().values.size() != expected) {
      Fault(Wrong("hidden states of step ", header.step_id, " are ", hidden_.front().values.size(),
                  " values; its ", num_tokens, " tokens need ", expected),
            worker_of(assignment_.stage_index - 1));
      return true;
    }
    compute.hidden = std::move(hidden_.front().values);
    hidden_.pop_front();
  }
  computing_ = Computing{.step_id = header.step_id, .num_tokens = num_tokens};
  --num_pending_steps_;
  compute.header = std::move(header);
  effects_.push_back(std::move(compute));
  return true;
}

void StageSession::Fault(const absl::Status& status, std::string suspect_worker_id) {
  StageFault fault{
      .epoch = assignment_.epoch,
      .reason = absl::StrCat("stage ", assignment_.stage_index, ": ", status.message()),
      .suspect_worker_id = std::move(suspect_worker_id)};
  started_ = false;
  Forget();
  effects_.push_back(std::move(fault));
}

void StageSession::Forget() {
  open_.clear();
  pending_.clear();
  num_pending_steps_ = 0;
  last_header_id_ = 0;
  hidden_.clear();
  last_hidden_id_ = 0;
  computing_.reset();
}

const std::string& StageSession::worker_of(int stage_index) const {
  return assignment_.stages[static_cast<size_t>(stage_index)].worker_id;
}

}  // namespace sauva
