#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gateway/request_session.h"
#include "proto/generation.h"

namespace sauva {

// What every first response of a sample tells its caller.
struct SampleHeader {
  uint64_t seed = 0;
  std::string model;
  std::string numerics_id;
};

// One response of a stream.
struct SampleOutput {
  std::string request_id;
  uint32_t sample_index = 0;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<TokenLogprobs> logprobs;
  FinishReason finish = FinishReason::kNone;
  std::optional<SampleHeader> header;  // on a sample's first response
  std::optional<SampleUsage> usage;    // on its last
};

// How a call ends whose responses pile up unread.
inline absl::Status ReadsTooSlowly() {
  return absl::ResourceExhaustedError(
      "the client reads too slowly; resume with resume_tokens where it stopped");
}

}  // namespace sauva
