#include "gateway/sample_runner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"

namespace sauva {
namespace {

std::string RandomBytes(uint64_t random) {
  return std::string(reinterpret_cast<const char*>(&random), sizeof random);
}

}  // namespace

uint64_t SampleRunner::Add(NewSample sample) {
  const uint64_t id = next_id_++;
  ModelMetrics& metrics = context_.metrics.Of(sample.model->ref.name);
  Sample& added = samples_.try_emplace(id, std::move(sample), limits_, metrics).first->second;
  if (added.caller) {
    added.trace = *added.caller;
  } else {
    for (int i = 0; i < 2; ++i) added.trace.trace_id += RandomBytes(NewSpanId());
  }
  added.trace.span_id = NewSpanId();
  metrics.Waiting(1);
  return id;
}

void SampleRunner::Handle(uint64_t id, const SessionEvent& event) {
  const auto found = samples_.find(id);
  if (found == samples_.end()) return;
  Sample& sample = found->second;
  const absl::Time now = absl::Now();
  if (const auto* tokens = std::get_if<HeadSentTokens>(&event)) sample.timeline.On(*tokens);
  if (const auto* ended = std::get_if<HeadEnded>(&event)) sample.timeline.On(*ended, now);
  SessionEffects effects = sample.session.OnEvent(event, now);
  if (sample.queued && sample.session.accepted()) LeaveQueue(sample, now);
  for (SessionEffect& effect : effects) {
    std::visit([&](auto& e) { Do(id, sample, e); }, effect);
  }
  if (sample.reader_stuck) {
    for (SessionEffect& effect : sample.session.OnEvent(ClientCancelled{}, now)) {
      std::visit([&](auto& e) { Do(id, sample, e); }, effect);
    }
    context_.metrics.SlowReader();
    sample.ended = ReadsTooSlowly();
  }
  if (sample.ended) return End(id);
  wakes_.Set(id, sample.session.NextWake());
}

// Handlers run last, when the sample is gone, since they may cancel others or add new ones.
void SampleRunner::End(uint64_t id) {
  auto node = samples_.extract(id);
  Sample& sample = node.mapped();
  wakes_.Forget(id);
  if (sample.queued) {
    sample.metrics.Waiting(-1);
    context_.admission.Dequeue(sample.num_tokens());
  } else {
    sample.metrics.Running(-1);
  }
  context_.metrics.Queued(context_.admission);
  if (!sample.timeline.streams().empty()) {
    sample.timeline.End(sample.timeline.streams().back().attempt, absl::OkStatus(), absl::Now());
  }
  if (!sample.ended->ok()) NoteFailure(sample);
  NoteIfSlow(sample);
  ReportSpans(sample);
  sample.handlers.on_ended(id, *sample.ended);
}

void SampleRunner::NoteFailure(const Sample& sample) {
  sample.metrics.Failed(*sample.ended);
  if (absl::IsCancelled(*sample.ended)) return;  // as the client wished
  const SampleRequest& request = sample.session.request();
  LogWarning("sample failed", {{"request_id", request.request_id},
                               {"sample", request.sample_index},
                               {"tokens", sample.session.completion().tokens().size()},
                               {"reason", sample.ended->ToString()}});
}

std::string SampleRunner::TraceparentOf(const Sample& sample, uint64_t span_id) const {
  if (!sample.caller) return {};
  TraceContext context = sample.trace;
  context.span_id = span_id;
  return FormatTraceparent(context);
}

// The timeline of one sample in one line.
void SampleRunner::NoteIfSlow(const Sample& sample) {
  const absl::Time now = absl::Now();
  if (now - sample.arrived < context_.slow_request) return;
  const SampleRequest& request = sample.session.request();
  const auto ms = [&](absl::Time end) {
    return absl::ToInt64Milliseconds(std::min(end, now) - sample.arrived);
  };
  std::vector<LogField> fields = {{"request_id", request.request_id},
                                  {"sample", request.sample_index},
                                  {"traceparent", TraceparentOf(sample, sample.trace.span_id)},
                                  {"status", absl::StatusCodeToString(sample.ended->code())},
                                  {"model", request.model.name},
                                  {"prompt_tokens", request.prompt.size()},
                                  {"cached_tokens", sample.usage.cached_tokens},
                                  {"tokens", sample.session.completion().tokens().size()},
                                  {"resumes", sample.usage.resumes},
                                  {"queue_ms", ms(sample.left_queue)},
                                  {"first_token_ms", ms(sample.first_token_at)},
                                  {"longest_gap_ms", absl::ToInt64Milliseconds(sample.longest_gap)},
                                  {"total_ms", ms(now)}};
  for (LogField& field : StreamFields(sample.timeline)) fields.push_back(std::move(field));
  LogInfo("slow request", fields);
}

// Those whose caller records its trace; and of callers without a trace those that somebody will
// ask about: slow ones and failures.
void SampleRunner::ReportSpans(const Sample& sample) {
  if (context_.on_spans == nullptr) return;
  const absl::Time now = absl::Now();
  const bool wanted = sample.caller ? sample.caller->sampled()
                                    : now - sample.arrived >= context_.slow_request ||
                                          !(sample.ended->ok() || absl::IsCancelled(*sample.ended));
  if (!wanted) return;
  SampleRecord record{.trace = sample.trace,
                      .parent_span_id = sample.caller ? sample.caller->span_id : 0,
                      .operation = sample.operation,
                      .request = sample.session.request(),
                      .timeline = sample.timeline,
                      .arrived = sample.arrived,
                      .left_queue = sample.left_queue,
                      .first_token = sample.first_token_at,
                      .ended = now,
                      .usage = sample.usage,
                      .finish = sample.finish,
                      .status = *sample.ended};
  record.usage.completion_tokens =
      static_cast<uint32_t>(sample.session.completion().tokens().size());
  context_.on_spans(SpansOf(record, NewSpanId()));
}

void SampleRunner::LeaveQueue(Sample& sample, absl::Time now) {
  sample.queued = false;
  sample.left_queue = now;
  context_.admission.Dequeue(sample.num_tokens());
  context_.metrics.Queued(context_.admission);
  sample.metrics.Waiting(-1);
  sample.metrics.Running(1);
  sample.metrics.LeftQueue(now - sample.arrived, sample.session.request().prompt.size());
}

void SampleRunner::Do(uint64_t id, Sample& sample, SendDispatch& effect) {
  if (effect.attempt == 1) return DispatchTogether(id, sample, effect);
  sample.dispatch = context_.coordinator.Dispatch(
      effect.request, sample.session.request().deadline,
      [this, id, attempt = effect.attempt,
       loop = context_.loop](absl::StatusOr<DispatchReply> answer) {
        PostEvent(loop, [this, id, attempt, answer = std::move(answer)] {
          OnDispatch(id, attempt, answer);
        });
      });
}

void SampleRunner::DispatchTogether(uint64_t id, Sample& sample, const SendDispatch& effect) {
  const std::shared_ptr<FirstDispatch> first = sample.first_dispatch;
  first->waiting.emplace_back(id, effect.attempt);
  if (first->call != nullptr) return;
  first->call = context_.coordinator.Dispatch(
      effect.request, sample.session.request().deadline,
      [this, first, loop = context_.loop](absl::StatusOr<DispatchReply> answer) {
        PostEvent(loop,
                  [this, first, answer = std::move(answer)] { OnFirstDispatch(*first, answer); });
      });
}

void SampleRunner::OnFirstDispatch(FirstDispatch& first,
                                   const absl::StatusOr<DispatchReply>& answer) {
  for (const auto& [id, attempt] : std::exchange(first.waiting, {})) {
    OnDispatch(id, attempt, answer);
  }
}

void SampleRunner::OnDispatch(uint64_t id, uint64_t attempt,
                              const absl::StatusOr<DispatchReply>& answer) {
  if (answer.ok()) return Handle(id, DispatchReplied{attempt, *answer});
  Handle(id, DispatchFailed{attempt, answer.status()});
}

void SampleRunner::Do(uint64_t id, Sample& sample, AbandonDispatch& effect) {
  if (effect.attempt > 1) {
    if (sample.dispatch != nullptr) sample.dispatch->Cancel();
    return;
  }
  FirstDispatch& first = *sample.first_dispatch;
  std::erase_if(first.waiting, [id](const auto& entry) { return entry.first == id; });
  if (first.waiting.empty() && first.call != nullptr) first.call->Cancel();
}

void SampleRunner::Do(uint64_t id, Sample& sample, OpenHead& effect) {
  const uint64_t attempt = effect.attempt;
  const uint64_t span_id = NewSpanId();
  effect.request.with_phases =
      context_.on_spans != nullptr || context_.slow_request != absl::InfiniteDuration();
  sample.timeline.Open({.attempt = attempt,
                        .head = effect.address,
                        .epoch = effect.request.epoch,
                        .span_id = span_id,
                        .begin = absl::Now()});
  absl::StatusOr<std::shared_ptr<PendingCall>> head = context_.heads.Open(
      effect.address, effect.request, sample.session.request().deadline,
      TraceparentOf(sample, span_id),
      {.on_tokens =
           [this, id, attempt, loop = context_.loop](SequenceTokens message) {
             PostEvent(loop, [this, id, attempt, message = std::move(message)]() mutable {
               Handle(id, HeadSentTokens{attempt, std::move(message)});
             });
           },
       .on_ended =
           [this, id, attempt, loop = context_.loop](const absl::Status& status) {
             PostEvent(loop, [this, id, attempt, status] {
               Handle(id, HeadEnded{attempt, status});
             });
           }});
  if (head.ok()) {
    sample.head = *std::move(head);
    return;
  }
  PostEvent(context_.loop, [this, id, attempt, status = head.status()] {
    Handle(id, HeadEnded{attempt, status});
  });
}

void SampleRunner::Do(uint64_t, Sample& sample, CancelHead& effect) {
  sample.timeline.End(effect.attempt, absl::OkStatus(), absl::Now());
  if (sample.head != nullptr) sample.head->Cancel();
}

void SampleRunner::Do(uint64_t, Sample& sample, DeliverTokens& effect) {
  const absl::Time now = absl::Now();
  if (sample.last_tokens_at == absl::InfinitePast()) {
    sample.metrics.FirstToken(now - sample.arrived);
    sample.first_token_at = now;
  } else {
    sample.metrics.NextTokens(now - sample.last_tokens_at);
    sample.longest_gap = std::max(sample.longest_gap, now - sample.last_tokens_at);
  }
  sample.last_tokens_at = now;
  sample.metrics.Delivered(effect.tokens.size());
  SampleOutput output;
  output.text = std::move(effect.text);
  output.tokens = std::move(effect.tokens);
  output.logprobs = std::move(effect.logprobs);
  Send(sample, std::move(output));
}

void SampleRunner::Do(uint64_t id, Sample& sample, StreamResumed& effect) {
  sample.metrics.Resumed(effect);
  ++sample.usage.resumes;
  LogInfo("stream resumed", {{"request_id", sample.session.request().request_id},
                             {"sample", sample.session.request().sample_index},
                             {"id", id},
                             {"tokens", sample.session.completion().tokens().size()},
                             {"exact", effect.exact ? "true" : "false"}});
}

void SampleRunner::Do(uint64_t, Sample& sample, FinishSample& effect) {
  sample.metrics.Finished(effect);
  sample.usage = effect.usage;
  sample.finish = effect.reason;
  SampleOutput output;
  output.text = std::move(effect.text);
  output.finish = effect.reason;
  output.usage = effect.usage;
  Send(sample, std::move(output));
  sample.ended = absl::OkStatus();
}

void SampleRunner::Do(uint64_t, Sample& sample, FailSample& effect) {
  sample.ended = std::move(effect.status);
}

void SampleRunner::Send(Sample& sample, SampleOutput output) {
  const SampleRequest& request = sample.session.request();
  output.request_id = request.request_id;
  output.sample_index = request.sample_index;
  if (!std::exchange(sample.introduced, true)) {
    output.header = SampleHeader{.seed = *request.rules.sampling.seed,
                                 .model = request.model.name,
                                 .numerics_id = sample.session.numerics_id()};
  }
  if (!sample.handlers.on_output(std::move(output))) sample.reader_stuck = true;
}

}  // namespace sauva
