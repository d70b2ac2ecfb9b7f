#pragma once

#include <functional>
#include <iosfwd>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/generation_client.h"

namespace sauva {

// When a broken generation is asked for again, and where.
class GatewayChoice {
 public:
  static constexpr int kRoundsWithoutProgress = 4;

  explicit GatewayChoice(size_t num_gateways) : num_gateways_(num_gateways) {}

  size_t index() const { return attempt_ % num_gateways_; }

  // After a call failed with `status`: how long to wait before asking index(), or nothing
  // when to give up. Only UNAVAILABLE is worth another gateway; a lone gateway that never
  // answered is not asked twice.
  std::optional<absl::Duration> AfterFailure(const absl::Status& status, size_t tokens_received);

 private:
  const size_t num_gateways_;
  size_t attempt_ = 0;
  size_t failures_without_progress_ = 0;
  size_t tokens_before_ = 0;
};

// Fills the transcript from one gateway after another, and says so on `notes` when it goes
// on elsewhere. on_piece: each message that adds something, as it comes.
// Errors: the last gateway's status; DATA_LOSS when a stream ends before its samples do.
absl::Status GenerateAtGateways(const GenerateOptions& options, Transcript& transcript,
                                const std::function<void(const GeneratedPiece&)>& on_piece,
                                std::ostream& notes);

enum class GenerateOutput { kText, kJson };

// Runs `sauva generate`: streams the text of a single sample to `out` as it comes, prints
// several samples each when all are there, or one line of JSON per sample; goes on at
// another gateway when one breaks, and says so on `notes`.
// Errors: the last gateway's status.
absl::Status RunGenerate(const GenerateOptions& options, GenerateOutput output, std::ostream& out,
                         std::ostream& notes);

}  // namespace sauva
