#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "gateway/request_session.h"
#include "gateway/span.h"
#include "net/traceparent.h"
#include "proto/generation.h"

namespace sauva {

// One stream from a head, of those that a sample had one after the other.
struct HeadStream {
  uint64_t attempt = 0;
  std::string head;  // host:port
  uint64_t epoch = 0;
  uint64_t span_id = 0;
  absl::Time begin;
  absl::Time end = absl::InfiniteFuture();  // while it runs
  absl::Status status;
  uint32_t tokens = 0;            // that came
  std::vector<StepPhase> phases;  // as its head told last
};

// Where the time of one sample goes: its streams and what their heads computed.
// Thread: its owner's.
class SampleTimeline {
 public:
  // Older ones than these many are forgotten.
  static constexpr size_t kMaxStreams = 16;

  void Open(HeadStream stream);
  void On(const HeadSentTokens& event);
  void On(const HeadEnded& event, absl::Time now) { End(event.attempt, event.status, now); }
  void End(uint64_t attempt, const absl::Status& status, absl::Time now);

  // Oldest first.
  const std::vector<HeadStream>& streams() const { return streams_; }

 private:
  HeadStream* Find(uint64_t attempt);

  std::vector<HeadStream> streams_;
};

// A sample that has ended, as a trace tells it.
struct SampleRecord {
  TraceContext trace;           // its own
  uint64_t parent_span_id = 0;  // 0: none
  std::string operation;        // as OpenTelemetry calls it: chat, text_completion
  const SampleRequest& request;
  const SampleTimeline& timeline;
  absl::Time arrived;
  absl::Time left_queue;   // InfiniteFuture: never
  absl::Time first_token;  // InfiniteFuture: never
  absl::Time ended;
  SampleUsage usage;
  FinishReason finish = FinishReason::kNone;
  absl::Status status;
};

// A span for the sample; below it one for its wait and one per stream of a head; below those
// one per phase. Names and attributes: OpenTelemetry's for generative AI where there is one.
// Phases are put where this process saw their stream begin: clocks of other machines do not
// matter. `first_id` and those after it name the spans that have no name yet.
std::vector<Span> SpansOf(const SampleRecord& sample, uint64_t first_id);

// The streams as fields of a log line, one per stream.
std::vector<LogField> StreamFields(const SampleTimeline& timeline);

}  // namespace sauva
