#include "gateway/sample_timeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace sauva {
namespace {

const char* NameOf(StepPhase::Kind kind) {
  return kind == StepPhase::Kind::kDecode ? "decode" : "prefill";
}

const char* NameOf(FinishReason finish) {
  return finish == FinishReason::kStop ? "stop" : "length";
}

Span Child(const Span& parent, uint64_t span_id, const std::string& name) {
  return {.trace_id = parent.trace_id,
          .span_id = span_id,
          .parent_span_id = parent.span_id,
          .name = name};
}

Span Root(const SampleRecord& sample) {
  const SampleRequest& request = sample.request;
  Span span{.trace_id = sample.trace.trace_id,
            .span_id = sample.trace.span_id,
            .parent_span_id = sample.parent_span_id,
            .name = absl::StrCat(sample.operation, " ", request.model.name),
            .kind = Span::Kind::kServer,
            .begin = sample.arrived,
            .end = sample.ended,
            .status = sample.status};
  span.attributes = {{"gen_ai.operation.name", sample.operation},
                     {"gen_ai.provider.name", "sauva"},
                     {"gen_ai.request.model", request.model.name},
                     {"gen_ai.response.model", request.model.name},
                     {"gen_ai.response.id", request.request_id},
                     {"gen_ai.request.max_tokens", int64_t{request.rules.sampling.max_tokens}},
                     {"gen_ai.request.temperature", double{request.rules.sampling.temperature}},
                     {"gen_ai.usage.input_tokens", static_cast<int64_t>(request.prompt.size())},
                     {"gen_ai.usage.output_tokens", int64_t{sample.usage.completion_tokens}},
                     {"sauva.sample_index", int64_t{request.sample_index}},
                     {"sauva.cached_tokens", int64_t{sample.usage.cached_tokens}},
                     {"sauva.resumes", int64_t{sample.usage.resumes}}};
  if (sample.finish != FinishReason::kNone) {
    span.attributes.emplace_back("gen_ai.response.finish_reasons",
                                 std::vector<std::string>{NameOf(sample.finish)});
  }
  if (sample.first_token != absl::InfiniteFuture()) {
    span.attributes.emplace_back("sauva.time_to_first_token",
                                 absl::ToDoubleSeconds(sample.first_token - sample.arrived));
  }
  if (!sample.status.ok()) {
    span.attributes.emplace_back("error.type", absl::StatusCodeToString(sample.status.code()));
  }
  return span;
}

Span SpanOf(const HeadStream& stream, const Span& sample) {
  Span span = Child(sample, stream.span_id, "sauva.v1.WorkerService/Generate");
  const size_t colon = stream.head.rfind(':');
  int64_t port = 0;
  (void)!absl::SimpleAtoi(stream.head.substr(colon + 1), &port);  // 0: none that is a number
  span.kind = Span::Kind::kClient;
  span.begin = stream.begin;
  span.end = std::min(stream.end, sample.end);
  span.status = stream.status;
  span.attributes = {{"rpc.system", "grpc"},
                     {"server.address", stream.head.substr(0, colon)},
                     {"server.port", port},
                     {"sauva.epoch", absl::StrCat(stream.epoch)},
                     {"sauva.tokens", int64_t{stream.tokens}}};
  if (!stream.status.ok()) {
    span.attributes.emplace_back("error.type", absl::StatusCodeToString(stream.status.code()));
  }
  return span;
}

// Within its stream: what the head measured lies between the two moments that this process saw.
Span SpanOf(const StepPhase& phase, const Span& stream, uint64_t span_id) {
  Span span = Child(stream, span_id, NameOf(phase.kind));
  span.begin = std::min(stream.begin + absl::Seconds(phase.begin_seconds), stream.end);
  span.end = std::clamp(stream.begin + absl::Seconds(phase.end_seconds), span.begin, stream.end);
  span.attributes = {{"sauva.steps", int64_t{phase.steps}},
                     {"sauva.tokens", int64_t{phase.tokens}},
                     {"sauva.stage.compute_seconds", phase.stage_seconds}};
  return span;
}

std::string TextOf(const StepPhase& phase) {
  return absl::StrFormat("%s at %.1f ms: %d steps, %d tokens, %.1f ms, stages %s ms",
                         NameOf(phase.kind), 1e3 * phase.begin_seconds, phase.steps, phase.tokens,
                         1e3 * (phase.end_seconds - phase.begin_seconds),
                         absl::StrJoin(phase.stage_seconds, "+", [](std::string* out, double s) {
                           absl::StrAppendFormat(out, "%.1f", 1e3 * s);
                         }));
}

}  // namespace

HeadStream* SampleTimeline::Find(uint64_t attempt) {
  for (HeadStream& stream : streams_) {
    if (stream.attempt == attempt && stream.end == absl::InfiniteFuture()) return &stream;
  }
  return nullptr;
}

void SampleTimeline::Open(HeadStream stream) {
  if (streams_.size() == kMaxStreams) streams_.erase(streams_.begin());
  streams_.push_back(std::move(stream));
}

void SampleTimeline::On(const HeadSentTokens& event) {
  HeadStream* stream = Find(event.attempt);
  if (stream == nullptr) return;
  stream->tokens += static_cast<uint32_t>(event.message.tokens.size());
  if (!event.message.phases.empty()) stream->phases = event.message.phases;
}

void SampleTimeline::End(uint64_t attempt, const absl::Status& status, absl::Time now) {
  HeadStream* stream = Find(attempt);
  if (stream == nullptr) return;
  stream->end = now;
  stream->status = status;
}

std::vector<Span> SpansOf(const SampleRecord& sample, uint64_t first_id) {
  std::vector<Span> spans = {Root(sample)};
  const Span root = spans[0];
  Span queue = Child(root, first_id++, "queue");
  queue.begin = sample.arrived;
  queue.end = std::min(sample.left_queue, sample.ended);
  spans.push_back(std::move(queue));
  for (const HeadStream& stream : sample.timeline.streams()) {
    const Span above = SpanOf(stream, root);
    spans.push_back(above);
    for (const StepPhase& phase : stream.phases) spans.push_back(SpanOf(phase, above, first_id++));
  }
  return spans;
}

std::vector<LogField> StreamFields(const SampleTimeline& timeline) {
  std::vector<LogField> fields;
  for (const HeadStream& stream : timeline.streams()) {
    std::vector<std::string> phases;
    for (const StepPhase& phase : stream.phases) phases.push_back(TextOf(phase));
    fields.emplace_back(
        absl::StrCat("stream_", fields.size() + 1),
        absl::StrCat(stream.head, " epoch ", stream.epoch, ", ", stream.tokens, " tokens; ",
                     absl::StrJoin(phases, "; "),
                     stream.status.ok() ? "" : absl::StrCat("; ", stream.status.ToString())));
  }
  return fields;
}

}  // namespace sauva
