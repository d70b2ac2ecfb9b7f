#include "engine/scheduler.h"

#include <climits>
#include <deque>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/block_pool.h"
#include "engine/sequence_state.h"

namespace sauva {
namespace {

// A step on its way through the pipeline.
struct StepInFlight {
  struct Item {
    SequenceId id = 0;
    StepWant want = StepWant::kNone;
    int num_scores = 0;
  };
  uint64_t step_id = 0;
  std::vector<Item> items;
};

}  // namespace

struct Scheduler::Impl {
  explicit Impl(const SchedulerLimits& l) : limits(l), pool(l.num_kv_blocks) {}

  const SchedulerLimits limits;
  BlockPool pool;
  std::unordered_map<SequenceId, SequenceState> sequences;
  // Both oldest first, and every running one is older than every waiting one.
  std::vector<SequenceState*> running;
  std::deque<SequenceState*> waiting;
  int64_t waiting_tokens = 0;
  std::deque<StepInFlight> in_flight;
  uint64_t next_arrival = 0;
  uint64_t next_step_id = 1;
  uint64_t num_preemptions = 0;

  // A step while it is put together.
  struct Draft {
    ScheduledStep step;
    StepInFlight record;
    int tokens_left = 0;
    int sequences_left = 0;
    bool full() const { return tokens_left == 0 || sequences_left == 0; }
  };

  enum class Next { kCompute, kAwait };

  void ScheduleRunning(Draft& draft);
  void ScheduleWaiting(Draft& draft);
  bool MayAdmit(const SequenceState& sequence) const;
  void Schedule(SequenceState& sequence, Draft& draft);
  void Append(SequenceState& sequence, int count, Draft& draft);
  Next TakeCachedBlocks(SequenceState& sequence);
  int MakeRoom(SequenceState& sequence, int count);
  bool PreemptOneYoungerThan(const SequenceState& sequence);
  void AnnounceContents(SequenceState& sequence);
  void PublishContents(const SequenceState& sequence, int first_block);
  void ReleaseBlocks(SequenceState& sequence);
  int NumCachedInUse(const SequenceState& sequence) const;
  int NumPromisedBlocks() const;
  int SequencesPerStep() const;
  void PushWaiting(SequenceState& sequence);
  void PopWaiting();
  absl::Status CheckMatches(const StepInFlight& step, const StepResult& result) const;
  void FinishItem(const StepInFlight::Item& item, const SampledToken* sampled);
};

Scheduler::Scheduler(const SchedulerLimits& limits) {
  Check(limits.num_kv_groups > 0 && limits.max_step_tokens > 0 && limits.max_sequences > 0 &&
            limits.max_context > 0 && limits.max_steps_in_flight > 0,
        "the limits of a scheduler are positive");
  impl_ = std::make_unique<Impl>(limits);
}
Scheduler::~Scheduler() = default;

absl::Status Scheduler::Add(NewSequence sequence) {
  Impl& impl = *impl_;
  RETURN_IF_ERROR(CheckFits(sequence, impl.limits));
  if (impl.sequences.contains(sequence.id)) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", sequence.id, " is known already"));
  }
  const int queued = num_waiting();
  if (queued >= impl.limits.max_waiting) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue holds ", queued, " of at most ",
                                                     impl.limits.max_waiting, " sequences"));
  }
  SequenceState state = MakeState(std::move(sequence), impl.limits);
  if (queued > 0 && impl.waiting_tokens + state.max_tokens > impl.limits.max_waiting_tokens) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the queue holds ", impl.waiting_tokens, " of at most ", impl.limits.max_waiting_tokens,
        " tokens; the sequence has up to ", state.max_tokens));
  }
  state.arrival = impl.next_arrival++;
  const SequenceId id = state.id;
  SequenceState& stored = impl.sequences.emplace(id, std::move(state)).first->second;
  impl.waiting.push_back(&stored);
  impl.waiting_tokens += stored.max_tokens;
  return absl::OkStatus();
}

bool Scheduler::Cancel(SequenceId id) {
  Impl& impl = *impl_;
  const auto it = impl.sequences.find(id);
  if (it == impl.sequences.end()) return false;
  SequenceState& sequence = it->second;
  switch (sequence.phase) {
    case SequencePhase::kLeaving:
      return false;
    case SequencePhase::kWaiting:
      std::erase(impl.waiting, &sequence);
      impl.waiting_tokens -= sequence.max_tokens;
      break;
    case SequencePhase::kRunning:
      std::erase(impl.running, &sequence);
      if (sequence.in_flight()) {
        sequence.phase = SequencePhase::kLeaving;
        return true;
      }
      impl.ReleaseBlocks(sequence);
      break;
    case SequencePhase::kComplete:
      break;
  }
  impl.sequences.erase(it);
  return true;
}

std::optional<ScheduledStep> Scheduler::NextStep() {
  Impl& impl = *impl_;
  if (num_steps_in_flight() >= impl.limits.max_steps_in_flight) return std::nullopt;
  Impl::Draft draft;
  draft.tokens_left = impl.limits.max_step_tokens;
  draft.sequences_left = impl.SequencesPerStep();
  impl.ScheduleRunning(draft);
  impl.ScheduleWaiting(draft);
  if (draft.record.items.empty()) return std::nullopt;
  draft.record.step_id = draft.step.header.step_id = impl.next_step_id++;
  impl.in_flight.push_back(std::move(draft.record));
  return std::move(draft.step);
}

absl::Status Scheduler::FinishStep(const StepResult& result) {
  Impl& impl = *impl_;
  if (impl.in_flight.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("result of step ", result.step_id, " while no step is in flight"));
  }
  RETURN_IF_ERROR(impl.CheckMatches(impl.in_flight.front(), result));
  const StepInFlight step = std::move(impl.in_flight.front());
  impl.in_flight.pop_front();
  size_t next = 0;
  for (const StepInFlight::Item& item : step.items) {
    const bool answered = item.want != StepWant::kNone;
    impl.FinishItem(item, answered ? &result.sampled[next++] : nullptr);
  }
  return absl::OkStatus();
}

// Oldest first; those already in a step, or waiting for a block that is being computed,
// are left out.
void Scheduler::Impl::ScheduleRunning(Draft& draft) {
  // Preemption takes sequences from the back, never the one at hand or one before it.
  for (size_t i = 0; i < running.size() && !draft.full(); ++i) {
    if (!running[i]->in_flight()) Schedule(*running[i], draft);
  }
}

void Scheduler::Impl::ScheduleWaiting(Draft& draft) {
  while (!waiting.empty() && !draft.full() &&
         static_cast<int>(running.size()) < limits.max_sequences && MayAdmit(*waiting.front())) {
    SequenceState& sequence = *waiting.front();
    PopWaiting();
    sequence.phase = SequencePhase::kRunning;
    running.push_back(&sequence);
    Schedule(sequence, draft);
  }
}

// True when the blocks not yet promised to running sequences hold all its known tokens, so
// that admission alone preempts nobody.
bool Scheduler::Impl::MayAdmit(const SequenceState& sequence) const {
  const int spare = pool.num_free() - NumPromisedBlocks();
  const int needed = sequence.num_needed_blocks();
  return needed <= spare || needed - NumCachedInUse(sequence) <= spare;
}

void Scheduler::Impl::Schedule(SequenceState& sequence, Draft& draft) {
  if (TakeCachedBlocks(sequence) == Next::kAwait) return;
  int wanted = std::min(sequence.num_pending(), draft.tokens_left);
  if (sequence.recomputes_scores()) {
    wanted = std::min(wanted, sequence.num_scored - sequence.num_computed);
  }
  const int count = MakeRoom(sequence, wanted);
  if (count > 0) Append(sequence, count, draft);
}

void Scheduler::Impl::Append(SequenceState& sequence, int count, Draft& draft) {
  if (!sequence.opened) {
    draft.step.opened.push_back(
        {.id = sequence.id,
         .sampling = sequence.sampling,
         .seed = sequence.sampling.seed.value_or(0),
         .sample_index = sequence.sample_index,
         .tokens = sequence.tokens,
         .num_prompt_tokens = static_cast<uint32_t>(sequence.num_prompt_tokens)});
    sequence.opened = true;
  }
  const bool last_chunk = count == sequence.num_pending();
  const auto first = sequence.tokens.begin() + sequence.num_computed;
  SequenceStep item{
      .id = sequence.id, .first_position = sequence.num_computed, .tokens = {first, first + count}};
  if (sequence.num_announced_blocks < sequence.num_blocks()) {
    for (int group = 0; group < limits.num_kv_groups; ++group) {
      item.blocks.push_back({.kv_group = static_cast<uint32_t>(group),
                             .appended = {sequence.blocks.begin() + sequence.num_announced_blocks,
                                          sequence.blocks.end()}});
    }
    sequence.num_announced_blocks = sequence.num_blocks();
  }
  const bool scores = sequence.want == StepWant::kScore && !sequence.recomputes_scores();
  item.want = scores || last_chunk ? sequence.want : StepWant::kNone;
  draft.record.items.push_back({.id = sequence.id,
                                .want = item.want,
                                .num_scores = !scores      ? 0
                                              : last_chunk ? count - 1
                                                           : count});
  AnnounceContents(sequence);
  sequence.num_in_flight = count;
  draft.tokens_left -= count;
  --draft.sequences_left;
  draft.step.header.sequences.push_back(std::move(item));
}

// Takes full blocks that somebody else has computed. kAwait: somebody is just computing the
// next one. The last known token is never taken, so that its logits come to be.
Scheduler::Impl::Next Scheduler::Impl::TakeCachedBlocks(SequenceState& sequence) {
  if (!limits.prefix_cache || sequence.want == StepWant::kScore) return Next::kCompute;
  if (sequence.num_computed != sequence.num_blocks() * kKvBlockTokens) return Next::kCompute;
  for (int index = sequence.num_blocks(); (index + 1) * kKvBlockTokens < sequence.num_tokens();
       ++index) {
    const auto found = pool.Find(sequence.last_content(), sequence.block_tokens(index));
    if (!found) return Next::kCompute;
    if (!found->ready) return Next::kAwait;
    pool.Retain(found->block);
    sequence.blocks.push_back(found->block);
    sequence.contents.push_back(found->id);
    sequence.num_computed += kKvBlockTokens;
    if (!sequence.was_preempted && sequence.num_computed <= sequence.num_prompt_tokens) {
      sequence.num_cached += kKvBlockTokens;
    }
  }
  return Next::kCompute;
}

// Blocks for up to `count` more tokens; returns the tokens there is room for. Preempts only
// when there is room for none, and only younger ones: 0 means wait.
int Scheduler::Impl::MakeRoom(SequenceState& sequence, int count) {
  while (true) {
    int room = sequence.num_blocks() * kKvBlockTokens - sequence.num_computed;
    while (room < count) {
      const auto block = pool.Allocate();
      if (!block) break;
      sequence.blocks.push_back(*block);
      room += kKvBlockTokens;
    }
    if (room > 0) return std::min(room, count);
    if (!PreemptOneYoungerThan(sequence)) return 0;
  }
}

bool Scheduler::Impl::PreemptOneYoungerThan(const SequenceState& sequence) {
  SequenceState& youngest = *running.back();
  // One in flight is not passed over for an older one: its step returns first.
  if (&youngest == &sequence || youngest.in_flight()) return false;
  running.pop_back();
  ReleaseBlocks(youngest);
  youngest.num_computed = 0;
  youngest.was_preempted = youngest.opened || youngest.was_preempted;
  youngest.opened = false;
  ++num_preemptions;
  PushWaiting(youngest);
  return true;
}

// Names the blocks whose tokens are all known, so that others wait for them.
void Scheduler::Impl::AnnounceContents(SequenceState& sequence) {
  if (!limits.prefix_cache) return;
  for (int index = static_cast<int>(sequence.contents.size());
       index < sequence.num_blocks() && sequence.knows_block(index); ++index) {
    sequence.contents.push_back(pool.Announce(sequence.blocks[static_cast<size_t>(index)],
                                              sequence.last_content(),
                                              sequence.block_tokens(index)));
  }
}

// Shares the blocks a finished step has filled.
void Scheduler::Impl::PublishContents(const SequenceState& sequence, int first_block) {
  if (!limits.prefix_cache) return;
  for (int index = first_block; index < sequence.num_computed / kKvBlockTokens; ++index) {
    pool.Publish(sequence.blocks[static_cast<size_t>(index)]);
  }
}

// Last block first, so that the tails of texts are reused before their beginnings.
void Scheduler::Impl::ReleaseBlocks(SequenceState& sequence) {
  while (!sequence.blocks.empty()) {
    pool.Release(sequence.blocks.back());
    sequence.blocks.pop_back();
  }
  sequence.contents.clear();
  sequence.num_announced_blocks = 0;
}

// Leading blocks it would share with others that use them now.
int Scheduler::Impl::NumCachedInUse(const SequenceState& sequence) const {
  if (!limits.prefix_cache || sequence.want == StepWant::kScore) return 0;
  int in_use = 0;
  ContentId parent = kTextStart;
  for (int index = 0; (index + 1) * kKvBlockTokens < sequence.num_tokens(); ++index) {
    const auto found = pool.Find(parent, sequence.block_tokens(index));
    if (!found || !found->ready) break;
    in_use += pool.references(found->block) > 0;
    parent = found->id;
  }
  return in_use;
}

// Blocks running sequences still need for the tokens they know and the next one.
int Scheduler::Impl::NumPromisedBlocks() const {
  int promised = 0;
  for (const SequenceState* sequence : running) {
    promised += std::max(0, sequence->num_needed_blocks() - sequence->num_blocks());
  }
  return promised;
}

// A pipeline of S stages is full when S steps are in flight, so no step takes more than
// its share of the sequences that run or could start now.
int Scheduler::Impl::SequencesPerStep() const {
  if (limits.max_steps_in_flight == 1) return INT_MAX;
  int population = static_cast<int>(running.size());
  int spare = pool.num_free() - NumPromisedBlocks();
  for (const SequenceState* sequence : waiting) {
    spare -= sequence->num_needed_blocks();
    if (spare < 0 || population >= limits.max_sequences) break;
    ++population;
  }
  const int steps = limits.max_steps_in_flight;
  return std::max(1, (population + steps - 1) / steps);
}

void Scheduler::Impl::PushWaiting(SequenceState& sequence) {
  sequence.phase = SequencePhase::kWaiting;
  waiting.push_front(&sequence);
  waiting_tokens += sequence.max_tokens;
}

void Scheduler::Impl::PopWaiting() {
  waiting_tokens -= waiting.front()->max_tokens;
  waiting.pop_front();
}

absl::Status Scheduler::Impl::CheckMatches(const StepInFlight& step,
                                           const StepResult& result) const {
  if (result.step_id != step.step_id) {
    return absl::InvalidArgumentError(absl::StrCat("result of step ", result.step_id,
                                                   "; the oldest in flight is ", step.step_id));
  }
  size_t next = 0;
  for (const StepInFlight::Item& item : step.items) {
    if (item.want == StepWant::kNone) continue;
    if (next >= result.sampled.size() || result.sampled[next].id != item.id) {
      return absl::InvalidArgumentError(
          absl::StrCat("result of step ", step.step_id, " lacks an answer for sequence ", item.id));
    }
    const SampledToken& sampled = result.sampled[next++];
    if (item.want == StepWant::kSample && sampled.token < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampled token ", sampled.token, " for sequence ", item.id));
    }
    if (static_cast<int>(sampled.scores.size()) != item.num_scores) {
      return absl::InvalidArgumentError(absl::StrCat(sampled.scores.size(), " scores for sequence ",
                                                     item.id, "; expected ", item.num_scores));
    }
  }
  if (next != result.sampled.size()) {
    return absl::InvalidArgumentError(absl::StrCat("result of step ", step.step_id, " has ",
                                                   result.sampled.size(), " answers; expected ",
                                                   next));
  }
  return absl::OkStatus();
}

void Scheduler::Impl::FinishItem(const StepInFlight::Item& item, const SampledToken* sampled) {
  const auto it = sequences.find(item.id);
  Check(it != sequences.end(), "a sequence in flight is known");
  SequenceState& sequence = it->second;
  const int first_block = sequence.num_computed / kKvBlockTokens;
  sequence.num_computed += sequence.num_in_flight;
  sequence.num_in_flight = 0;
  sequence.num_scored += item.num_scores;
  PublishContents(sequence, first_block);
  if (sequence.phase == SequencePhase::kLeaving) {
    ReleaseBlocks(sequence);
    sequences.erase(it);
    return;
  }
  if (item.want == StepWant::kSample) sequence.tokens.push_back(sampled->token);
  if (!sequence.complete()) return;
  ReleaseBlocks(sequence);
  sequence.phase = SequencePhase::kComplete;
  std::erase(running, &sequence);
}

int Scheduler::num_running() const { return static_cast<int>(impl_->running.size()); }
int Scheduler::num_waiting() const { return static_cast<int>(impl_->waiting.size()); }
int Scheduler::num_free_blocks() const { return impl_->pool.num_free(); }
int Scheduler::num_steps_in_flight() const { return static_cast<int>(impl_->in_flight.size()); }
uint64_t Scheduler::num_preemptions() const { return impl_->num_preemptions; }

int Scheduler::num_cached_tokens(SequenceId id) const {
  const auto it = impl_->sequences.find(id);
  return it == impl_->sequences.end() ? 0 : it->second.num_cached;
}

void Scheduler::CheckInvariants() const {
  const Impl& impl = *impl_;
  impl.pool.CheckInvariants();
  Check(num_running() <= impl.limits.max_sequences, "no more sequences run than may");
  std::vector<int> references(static_cast<size_t>(impl.limits.num_kv_blocks), 0);
  for (const auto& [id, s] : impl.sequences) {
    for (const BlockId block : s.blocks) ++references[static_cast<size_t>(block)];
    const bool holds = s.phase == SequencePhase::kRunning || s.phase == SequencePhase::kLeaving;
    Check(holds || s.blocks.empty(), "only running and leaving sequences hold blocks");
    Check(holds || !s.in_flight(), "only running and leaving sequences are in flight");
    Check(!holds || s.num_blocks() == BlocksFor(s.num_computed + s.num_in_flight),
          "a sequence holds the blocks of its computed tokens");
    Check(s.contents.size() <= s.blocks.size(), "only blocks have content");
  }
  for (BlockId block = 0; block < impl.limits.num_kv_blocks; ++block) {
    Check(impl.pool.references(block) == references[static_cast<size_t>(block)],
          "a block has one reference per sequence that holds it");
  }
  std::unordered_map<SequenceId, int> steps;
  for (const StepInFlight& step : impl.in_flight) {
    for (const StepInFlight::Item& item : step.items) ++steps[item.id];
  }
  for (const auto& [id, s] : impl.sequences) {
    const auto it = steps.find(id);
    Check((it == steps.end() ? 0 : it->second) == (s.in_flight() ? 1 : 0),
          "a sequence is in at most one step in flight");
  }
  int64_t waiting_tokens = 0;
  std::vector<const SequenceState*> order(impl.running.begin(), impl.running.end());
  order.insert(order.end(), impl.waiting.begin(), impl.waiting.end());
  for (const SequenceState* s : impl.waiting) waiting_tokens += s->max_tokens;
  Check(waiting_tokens == impl.waiting_tokens, "the queue counts its tokens");
  for (size_t i = 1; i < order.size(); ++i) {
    Check(order[i - 1]->arrival < order[i]->arrival, "nobody overtakes");
  }
}

}  // namespace sauva
