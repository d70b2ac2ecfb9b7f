#include "worker/head_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/request_checks.h"

namespace sauva {
namespace {

size_t NumKnownTokens(const SequenceRequest& request) {
  return request.prompt.size() + request.resumed.size();
}

bool IsIn(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

HeadSession::HeadSession(const HeadOptions& options) : options_(options) {}
HeadSession::~HeadSession() = default;

HeadEffects HeadSession::OnEvent(HeadEvent event, absl::Time now) {
  now_ = now;
  std::visit([this](auto& e) { Handle(std::move(e)); }, event);
  return std::exchange(effects_, {});
}

absl::Time HeadSession::NextDeadline() const {
  if (in_flight_.empty()) return absl::InfiniteFuture();
  return oldest_since_ + options_.step_timeout;
}

int HeadSession::num_running() const { return scheduler_ ? scheduler_->num_running() : 0; }
int HeadSession::num_waiting() const { return scheduler_ ? scheduler_->num_waiting() : 0; }
int HeadSession::num_free_blocks() const { return scheduler_ ? scheduler_->num_free_blocks() : 0; }

HeadCounters HeadSession::counters() const {
  HeadCounters counters = counters_;
  if (scheduler_) counters.preemptions += scheduler_->num_preemptions();
  return counters;
}

void HeadSession::Handle(HeadStart event) {
  Check(!scheduler_, "a head starts an epoch after the last one ended");
  assignment_ = std::move(event.assignment);
  facts_ = std::move(event.facts);
  const int num_stages = static_cast<int>(assignment_.stages.size());
  scheduler_ = std::make_unique<Scheduler>(
      SchedulerLimits{.num_kv_blocks = static_cast<int>(event.num_kv_blocks),
                      .num_kv_groups = facts_.num_kv_groups,
                      .max_step_tokens = assignment_.max_step_tokens,
                      .max_sequences = assignment_.max_sequences,
                      .max_waiting = options_.max_waiting,
                      .max_waiting_tokens = options_.max_waiting_tokens,
                      .max_context = facts_.max_context,
                      .max_steps_in_flight = num_stages});
  steps_done_.assign(static_cast<size_t>(num_stages), 0);
  last_step_id_ = 0;
}

void HeadSession::Handle(StreamOpened event) {
  Check(!sequence_of_.contains(event.stream), "a stream id is used once");
  SequenceRequest& request = event.request;
  if (const absl::Status status = Admit(request); !status.ok()) {
    ++counters_.refusals[status.code()];
    effects_.push_back(EndStream{event.stream, status});
    return;
  }
  if (FinishAtOnce(event.stream, request)) return;
  const SequenceId id = ++last_sequence_id_;
  const uint32_t max_tokens = MaxCompletionTokens(request, facts_);
  NewSequence sequence{.id = id,
                       .sampling = request.sampling,
                       .sample_index = request.sample_index,
                       .prompt = request.prompt,
                       .resumed = request.resumed};
  sequence.sampling.max_tokens = static_cast<int>(max_tokens);
  if (const absl::Status status = scheduler_->Add(std::move(sequence)); !status.ok()) {
    ++counters_.refusals[status.code()];
    effects_.push_back(EndStream{event.stream, status});
    return;
  }
  counters_.prompt_tokens += request.prompt.size();
  if (!request.resumed.empty()) ++counters_.resumed_requests;
  const auto num_resumed = static_cast<uint32_t>(request.resumed.size());
  sequences_.emplace(id, Sequence{.stream = event.stream,
                                  .request = std::move(request),
                                  .num_completion_tokens = num_resumed,
                                  .max_completion_tokens = max_tokens,
                                  .taken_at = now_});
  sequence_of_.emplace(event.stream, id);
  StartSteps();
  SequenceTokens accepted{.first_index = num_resumed, .numerics_id = assignment_.numerics_id};
  accepted.cached_tokens = static_cast<uint32_t>(scheduler_->num_cached_tokens(id));
  effects_.push_back(StreamTokens{event.stream, std::move(accepted)});
}

absl::Status HeadSession::Admit(const SequenceRequest& request) const {
  if (!serving()) {
    return absl::UnavailableError("this worker serves no pipeline's head now; resume elsewhere");
  }
  if (request.epoch != epoch()) {
    return absl::FailedPreconditionError(absl::StrCat("the request is for epoch ", request.epoch,
                                                      "; this worker serves epoch ", epoch()));
  }
  if (draining_) return absl::UnavailableError("this worker drains; resume elsewhere");
  return CheckRequest(request, facts_);
}

// A request resumed after its last token but before its finish reason arrived has nothing
// left to compute.
bool HeadSession::FinishAtOnce(StreamId stream, const SequenceRequest& request) {
  if (request.resumed.empty()) return false;
  const Sequence sequence{.request = request,
                          .num_completion_tokens = static_cast<uint32_t>(request.resumed.size()),
                          .max_completion_tokens = MaxCompletionTokens(request, facts_)};
  const FinishReason finish = FinishOf(sequence, request.resumed.back());
  if (finish == FinishReason::kNone) return false;
  ++counters_.resumed_requests;
  ++counters_.finished[finish];
  const uint32_t first_index = sequence.num_completion_tokens;
  effects_.push_back(
      StreamTokens{stream, {.first_index = first_index, .numerics_id = assignment_.numerics_id}});
  effects_.push_back(StreamTokens{stream, {.first_index = first_index, .finish = finish}});
  effects_.push_back(EndStream{stream, absl::OkStatus()});
  return true;
}

void HeadSession::StartSteps() {
  while (std::optional<ScheduledStep> step = scheduler_->NextStep()) {
    for (OpenSequence& open : step->opened) SendOpen(std::move(open));
    StepHeader& header = step->header;
    Check(header.step_id == last_step_id_ + 1, "the scheduler numbers steps without gaps");
    last_step_id_ = header.step_id;
    header.epoch = epoch();
    if (in_flight_.empty()) oldest_since_ = now_;
    in_flight_.push_back({header.step_id, TimesOf(header)});
    effects_.push_back(std::move(header));
  }
}

std::optional<StepTimes> HeadSession::TimesOf(const StepHeader& header) const {
  std::optional<StepTimes> times;
  for (const SequenceStep& step : header.sequences) {
    const SequenceRequest& request = sequences_.at(step.id).request;
    if (!request.with_phases) continue;
    if (!times) times = {.begin = now_, .stage_seconds = std::vector<double>(steps_done_.size())};
    const bool is_new =
        step.tokens.size() == 1 && step.first_position >= static_cast<int>(NumKnownTokens(request));
    times->shares.push_back({.sequence = step.id,
                             .kind = is_new ? StepPhase::Kind::kDecode : StepPhase::Kind::kPrefill,
                             .tokens = static_cast<uint32_t>(step.tokens.size())});
  }
  return times;
}

void HeadSession::NotePhases(const StepTimes& times) {
  for (const StepTimes::Share& share : times.shares) {
    const auto found = sequences_.find(share.sequence);
    if (found == sequences_.end()) continue;  // cancelled meanwhile
    Sequence& sequence = found->second;
    AddStep({.kind = share.kind,
             .begin_seconds = absl::ToDoubleSeconds(times.begin - sequence.taken_at),
             .end_seconds = absl::ToDoubleSeconds(now_ - sequence.taken_at),
             .steps = 1,
             .tokens = share.tokens,
             .stage_seconds = times.stage_seconds},
            sequence.phases);
  }
}

void HeadSession::SendOpen(OpenSequence open) {
  Sequence& sequence = sequences_.at(open.id);
  if (!sequence.opened) {
    counters_.cached_tokens += static_cast<uint64_t>(scheduler_->num_cached_tokens(open.id));
  }
  sequence.opened = true;
  effects_.push_back(std::move(open));
}

void HeadSession::Handle(StreamCancelled event) {
  const auto found = sequence_of_.find(event.stream);
  if (found == sequence_of_.end()) return;
  ++counters_.failures[absl::StatusCode::kCancelled];
  Remove(found->second);
  StartSteps();
}

void HeadSession::Handle(StreamStalled event) {
  const auto found = sequence_of_.find(event.stream);
  if (found == sequence_of_.end()) return;
  ++counters_.failures[absl::StatusCode::kResourceExhausted];
  const uint32_t num_tokens = sequences_.at(found->second).num_completion_tokens;
  effects_.push_back(EndStream{
      event.stream, absl::ResourceExhaustedError(absl::StrCat(
                        "the reader does not keep up; ", num_tokens, " tokens are computed"))});
  Remove(found->second);
  StartSteps();
}

void HeadSession::Handle(StageResult event) {
  if (!serving() || event.result.epoch != epoch()) {
    ++counters_.stale_messages;
    return;
  }
  const int num_stages = static_cast<int>(assignment_.stages.size());
  Check(event.stage_index >= 0 && event.stage_index < num_stages, "results name a stage");
  const auto stage_index = static_cast<size_t>(event.stage_index);
  const uint64_t expected = steps_done_[stage_index] + 1;
  if (event.result.step_id != expected || expected > last_step_id_) {
    return Break(
        assignment_.stages[stage_index].worker_id,
        absl::StrCat("stage ", stage_index, " answered step ", event.result.step_id, " where ",
                     expected, " was next and ", last_step_id_, " the last one sent"));
  }
  steps_done_[stage_index] = expected;
  // The last stage's word may have overtaken this one: then the step is not in flight.
  if (!in_flight_.empty() && expected >= in_flight_.front().id) {
    std::optional<StepTimes>& times = in_flight_[expected - in_flight_.front().id].times;
    if (times) times->stage_seconds[stage_index] = event.result.compute_seconds;
  }
  if (event.stage_index + 1 == num_stages) FinishOldestStep(event.result);
}

void HeadSession::FinishOldestStep(const StepResult& result) {
  absl::Status status = CheckSampled(result);
  if (status.ok()) status = scheduler_->FinishStep(result);
  if (!status.ok()) {
    return Break(
        assignment_.stages.back().worker_id,
        absl::StrCat("the last stage's result of step ", result.step_id, ": ", status.message()));
  }
  if (in_flight_.front().times) NotePhases(*in_flight_.front().times);
  in_flight_.pop_front();
  oldest_since_ = now_;
  for (const SampledToken& sampled : result.sampled) DeliverToken(sampled);
  StartSteps();
}

// The scheduler compares the result with the step; here is what only streams care about.
absl::Status HeadSession::CheckSampled(const StepResult& result) const {
  for (const SampledToken& sampled : result.sampled) {
    if (sampled.token < 0 || sampled.token >= facts_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", sampled.token, " outside the vocabulary of ", facts_.vocab_size));
    }
    const auto found = sequences_.find(sampled.id);
    if (found == sequences_.end()) continue;  // cancelled meanwhile
    const size_t wanted = found->second.request.sampling.logprobs > 0 ? 1 : 0;
    if (sampled.logprobs.size() != wanted) {
      return absl::InvalidArgumentError(
          absl::StrCat(sampled.logprobs.size(), " logprobs where ", wanted, " were wanted"));
    }
  }
  return absl::OkStatus();
}

void HeadSession::DeliverToken(const SampledToken& sampled) {
  const auto found = sequences_.find(sampled.id);
  if (found == sequences_.end()) return;  // cancelled meanwhile
  Sequence& sequence = found->second;
  ++counters_.generation_tokens;
  SequenceTokens tokens{.first_index = sequence.num_completion_tokens,
                        .tokens = {sampled.token},
                        .logprobs = sampled.logprobs};
  if (!std::exchange(sequence.sent_token, true)) {
    tokens.cached_tokens = static_cast<uint32_t>(scheduler_->num_cached_tokens(sampled.id));
  }
  tokens.phases = sequence.phases;
  ++sequence.num_completion_tokens;
  tokens.finish = FinishOf(sequence, sampled.token);
  const FinishReason finish = tokens.finish;
  effects_.push_back(StreamTokens{sequence.stream, std::move(tokens)});
  if (finish == FinishReason::kNone) return;
  ++counters_.finished[finish];
  effects_.push_back(EndStream{sequence.stream, absl::OkStatus()});
  Remove(sampled.id);
}

FinishReason HeadSession::FinishOf(const Sequence& sequence, TokenId token) const {
  const SequenceRequest& request = sequence.request;
  const std::vector<TokenId>& eos =
      request.eos_tokens.empty() ? facts_.eos_tokens : request.eos_tokens;
  if (!request.sampling.ignore_eos && IsIn(eos, token)) return FinishReason::kStop;
  if (IsIn(request.sampling.stop_tokens, token)) return FinishReason::kStop;
  if (sequence.num_completion_tokens >= sequence.max_completion_tokens) {
    return FinishReason::kLength;
  }
  return FinishReason::kNone;
}

// Forgets a sequence here, in the scheduler and on every stage that knows it.
void HeadSession::Remove(SequenceId id) {
  const auto found = sequences_.find(id);
  Check(found != sequences_.end(), "only known sequences are removed");
  Check(scheduler_->Cancel(id), "the scheduler knows every sequence of the head");
  if (found->second.opened) effects_.push_back(CloseSequence{id});
  sequence_of_.erase(found->second.stream);
  sequences_.erase(found);
}

void HeadSession::Handle(PipelineBroken event) {
  if (!serving()) return;
  EndAllStreams(absl::UnavailableError(
      absl::StrCat("pipeline of epoch ", epoch(), " broke: ", event.reason, "; resume")));
}

void HeadSession::Handle(HeadDrain) { draining_ = true; }

void HeadSession::Handle(WorkerTick) {
  if (now_ < NextDeadline()) return;
  const uint64_t step_id = in_flight_.front().id;
  const size_t stage_index = SlowestStage(step_id);
  Break(assignment_.stages[stage_index].worker_id,
        absl::StrCat("stage ", stage_index, " has not answered step ", step_id, " within ",
                     absl::FormatDuration(options_.step_timeout)));
}

// The first stage that still owes the step: those behind it wait for its hidden states.
size_t HeadSession::SlowestStage(uint64_t step_id) const {
  for (size_t i = 0; i < steps_done_.size(); ++i) {
    if (steps_done_[i] < step_id) return i;
  }
  return steps_done_.size() - 1;
}

void HeadSession::Break(std::string suspect_worker_id, std::string reason) {
  EndAllStreams(absl::UnavailableError(
      absl::StrCat("pipeline of epoch ", epoch(), " broke: ", reason, "; resume")));
  effects_.push_back(HeadBroken{{.epoch = epoch(),
                                 .suspect_worker_id = std::move(suspect_worker_id),
                                 .reason = std::move(reason)}});
}

// Ends the epoch: stages are not told, they end with it.
void HeadSession::EndAllStreams(const absl::Status& status) {
  for (const auto& [stream, id] : sequence_of_) {
    ++counters_.failures[status.code()];
    effects_.push_back(EndStream{stream, status});
  }
  counters_.preemptions += scheduler_->num_preemptions();
  sequence_of_.clear();
  sequences_.clear();
  in_flight_.clear();
  scheduler_.reset();
}

void HeadSession::CheckInvariants() const {
  Check(sequences_.size() == sequence_of_.size(), "each stream has one sequence");
  for (const auto& [stream, id] : sequence_of_) {
    const auto found = sequences_.find(id);
    Check(found != sequences_.end() && found->second.stream == stream, "streams know sequences");
    Check(found->second.num_completion_tokens < found->second.max_completion_tokens,
          "a sequence at its limit has ended");
  }
  if (!scheduler_) {
    Check(sequences_.empty() && in_flight_.empty(), "nothing outlives the epoch");
    return;
  }
  Check(num_steps_in_flight() == scheduler_->num_steps_in_flight(), "steps in flight agree");
  Check(in_flight_.size() <= assignment_.stages.size(), "at most one step per stage in flight");
  scheduler_->CheckInvariants();
}

}  // namespace sauva
