#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/generation.h"

namespace sauva {

// A message of a generation as the command line needs it.
struct GeneratedPiece {
  uint32_t sample_index = 0;
  std::string text;
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
  std::optional<uint32_t> prompt_tokens;  // with finish
  std::optional<uint64_t> seed;           // first message of a sample
};

// What has come of one sample so far.
struct TranscriptSample {
  std::string text;
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
  uint32_t prompt_tokens = 0;
  std::optional<absl::Duration> first_token;  // after the start
  absl::Duration total;                       // until the end
};

// What a client received of a request, over as many gateways as it took: enough to ask
// another gateway for the rest.
// Pure: no clock, no I/O.
class Transcript {
 public:
  explicit Transcript(int num_samples) : samples_(static_cast<size_t>(num_samples)) {}

  // Takes a message that came `elapsed` after the start. False when it is not for a sample
  // that was asked for and is still open; nothing changes then.
  bool Add(const GeneratedPiece& piece, absl::Duration elapsed);

  // All samples have ended.
  bool complete() const;
  // Some token has come, so that another gateway must be told what is already here.
  bool started() const;
  // The seed in use, known from the first message on.
  const std::optional<uint64_t>& seed() const { return seed_; }
  const std::vector<TranscriptSample>& samples() const { return samples_; }

 private:
  std::vector<TranscriptSample> samples_;
  std::optional<uint64_t> seed_;
};

// A sample as one line of JSON, in the form that docs/command_line.md promises.
std::string SampleJson(const TranscriptSample& sample);

}  // namespace sauva
