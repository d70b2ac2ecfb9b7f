#include "engine/local_pipeline.h"

#include <algorithm>
#include <climits>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/kv_groups.h"
#include "engine/sequence_state.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<LocalPipeline>> LocalPipeline::Create(
    const ModelSpec& spec, const Checkpoint& checkpoint, const BackendFactory& make_backend,
    const LocalPipelineOptions& options) {
  const int num_layers = spec.num_layers();
  if (options.num_stages < 1 || options.num_stages > num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.num_stages, " stages for ", num_layers, " layers"));
  }
  std::unique_ptr<LocalPipeline> pipeline(new LocalPipeline());
  pipeline->eos_tokens_ = spec.eos_tokens;
  SchedulerLimits& limits = pipeline->limits_;
  limits.max_context = options.max_context > 0 ? options.max_context : spec.max_context;
  limits.num_kv_blocks = options.num_kv_blocks > 0 ? options.num_kv_blocks
                                                   : std::max(BlocksFor(limits.max_context),
                                                              LocalPipelineOptions::kLeastBlocks);
  limits.num_kv_groups = NumKvGroups(spec);
  limits.max_step_tokens = options.max_step_tokens;
  limits.max_sequences = options.max_sequences;
  limits.max_waiting = INT_MAX;
  limits.max_waiting_tokens = INT64_MAX;
  limits.max_steps_in_flight = options.num_stages;
  limits.prefix_cache = options.prefix_cache;
  for (int i = 0; i < options.num_stages; ++i) {
    const LayerRange layers = {.first = i * num_layers / options.num_stages,
                               .last = (i + 1) * num_layers / options.num_stages};
    RETURN_IF_ERROR(pipeline->AddStage(spec, checkpoint, make_backend,
                                       {.layers = layers,
                                        .first = i == 0,
                                        .last = i + 1 == options.num_stages,
                                        .weight_format = options.weight_format,
                                        .kv_type = options.kv_type,
                                        .max_context = options.max_context,
                                        .max_step_tokens = options.max_step_tokens,
                                        .max_sequences = options.max_sequences}));
  }
  pipeline->scheduler_ = std::make_unique<Scheduler>(limits);
  return pipeline;
}

absl::Status LocalPipeline::AddStage(const ModelSpec& spec, const Checkpoint& checkpoint,
                                     const BackendFactory& make_backend,
                                     const StageOptions& options) {
  LocalStage local;
  ASSIGN_OR_RETURN(local.backend, make_backend());
  ASSIGN_OR_RETURN(local.stage, Stage::Load(*local.backend, spec, checkpoint, options, {}));
  RETURN_IF_ERROR(local.stage->AllocateKv(limits_.num_kv_blocks));
  stages_.push_back(std::move(local));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<LocalPipeline::Completion>> LocalPipeline::Generate(
    std::vector<NewSequence> sequences) {
  std::vector<SequenceId> ids;
  for (NewSequence& sequence : sequences) {
    const absl::StatusOr<SequenceId> id = Add(std::move(sequence));
    if (!id.ok()) {
      for (const SequenceId added : ids) Forget(added);
      return id.status();
    }
    ids.push_back(*id);
  }
  RETURN_IF_ERROR(RunAll());
  std::vector<Completion> completions;
  for (const SequenceId id : ids) {
    completions.push_back(std::move(requests_.at(id).completion));
    requests_.erase(id);
  }
  return completions;
}

absl::StatusOr<std::vector<float>> LocalPipeline::Score(std::vector<TokenId> tokens) {
  if (tokens.size() == 1) return std::vector<float>();
  NewSequence sequence;
  sequence.prompt = std::move(tokens);
  sequence.want = StepWant::kScore;
  ASSIGN_OR_RETURN(const SequenceId id, Add(std::move(sequence)));
  RETURN_IF_ERROR(RunAll());
  std::vector<float> scores = std::move(requests_.at(id).scores);
  requests_.erase(id);
  return scores;
}

absl::StatusOr<SequenceId> LocalPipeline::Add(NewSequence sequence) {
  RETURN_IF_ERROR(broken_);
  sequence.id = next_id_++;
  const SequenceId id = sequence.id;
  if (sequence.want == StepWant::kSample && sequence.sampling.max_tokens == 0) {
    const int most = std::min(limits_.max_context, limits_.num_kv_blocks * kKvBlockTokens + 1);
    const int rest = most - static_cast<int>(sequence.prompt.size());
    sequence.sampling.max_tokens = std::max(0, rest);
  }
  Request request{.sampling = sequence.sampling, .num_resumed = sequence.resumed.size()};
  const size_t num_tokens = sequence.prompt.size();
  const bool scores = sequence.want == StepWant::kScore;
  RETURN_IF_ERROR(scheduler_->Add(std::move(sequence)));
  if (scores) request.num_scores = num_tokens - 1;
  requests_.emplace(id, std::move(request));
  return id;
}

absl::Status LocalPipeline::RunAll() {
  while (true) {
    while (std::optional<ScheduledStep> step = scheduler_->NextStep()) {
      steps_.push_back(*std::move(step));
    }
    if (steps_.empty()) break;
    broken_ = RunOldestStep();
    RETURN_IF_ERROR(broken_);
  }
  Check(scheduler_->num_running() == 0 && scheduler_->num_waiting() == 0,
        "a scheduler without a step has nothing left to do");
  return absl::OkStatus();
}

absl::Status LocalPipeline::RunOldestStep() {
  const ScheduledStep step = std::move(steps_.front());
  steps_.pop_front();
  std::span<const float> hidden;
  for (LocalStage& local : stages_) {
    for (const OpenSequence& open : step.opened) RETURN_IF_ERROR(local.stage->Open(open));
    RETURN_IF_ERROR(local.stage->RunStep(step.header, hidden, local.output));
    hidden = local.output.hidden;
  }
  ++num_steps_;
  StepResult result;
  result.step_id = step.header.step_id;
  result.sampled = stages_.back().output.sampled;
  RETURN_IF_ERROR(scheduler_->FinishStep(result));
  for (const SampledToken& sampled : result.sampled) Take(sampled);
  return absl::OkStatus();
}

void LocalPipeline::Take(const SampledToken& sampled) {
  Request& request = requests_.at(sampled.id);
  Completion& completion = request.completion;
  if (request.num_scores > 0) {
    request.scores.insert(request.scores.end(), sampled.scores.begin(), sampled.scores.end());
    if (request.scores.size() < request.num_scores) return;
  } else {
    completion.tokens.push_back(sampled.token);
    completion.logprobs.insert(completion.logprobs.end(), sampled.logprobs.begin(),
                               sampled.logprobs.end());
    completion.finish = FinishOf(request);
    if (completion.finish == FinishReason::kNone) return;
  }
  completion.num_cached_tokens = scheduler_->num_cached_tokens(sampled.id);
  scheduler_->Cancel(sampled.id);
  for (LocalStage& local : stages_) local.stage->Close(sampled.id);
}

FinishReason LocalPipeline::FinishOf(const Request& request) const {
  const SamplingParams& sampling = request.sampling;
  const TokenId token = request.completion.tokens.back();
  const auto has = [token](const auto& tokens) {
    return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
  };
  if (!sampling.ignore_eos && has(eos_tokens_)) return FinishReason::kStop;
  if (has(sampling.stop_tokens)) return FinishReason::kStop;
  const size_t length = request.num_resumed + request.completion.tokens.size();
  const bool full = length >= static_cast<size_t>(sampling.max_tokens);
  return full ? FinishReason::kLength : FinishReason::kNone;
}

int64_t LocalPipeline::weight_bytes() const {
  int64_t bytes = 0;
  for (const LocalStage& local : stages_) bytes += local.stage->weight_bytes();
  return bytes;
}

void LocalPipeline::Forget(SequenceId id) {
  scheduler_->Cancel(id);
  requests_.erase(id);
}

}  // namespace sauva
