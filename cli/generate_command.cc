#include "cli/generate_command.h"

#include <ostream>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(500);

size_t TokensReceived(const Transcript& transcript) {
  size_t total = 0;
  for (const TranscriptSample& sample : transcript.samples()) total += sample.tokens.size();
  return total;
}

void PrintSamples(const Transcript& transcript, GenerateOutput output, std::ostream& out) {
  for (size_t i = 0; i < transcript.samples().size(); ++i) {
    const TranscriptSample& sample = transcript.samples()[i];
    if (output == GenerateOutput::kJson) {
      out << SampleJson(sample) << "\n";
    } else {
      out << "--- sample " << i << "\n" << sample.text << "\n";
    }
  }
}

void PrintSpeed(const Transcript& transcript, std::ostream& notes) {
  absl::Duration total;
  absl::Duration first = absl::InfiniteDuration();
  for (const TranscriptSample& sample : transcript.samples()) {
    total = std::max(total, sample.total);
    first = std::min(first, sample.first_token.value_or(sample.total));
  }
  const auto tokens = static_cast<double>(TokensReceived(transcript));
  notes << absl::StrFormat("[%.0f tokens, %.1f tokens/s, first token after %.0f ms]\n", tokens,
                           tokens / absl::ToDoubleSeconds(total),
                           absl::ToDoubleMilliseconds(first));
}

}  // namespace

std::optional<absl::Duration> GatewayChoice::AfterFailure(const absl::Status& status,
                                                          size_t tokens_received) {
  // CANCELLED too: gRPC says so of a call that reached a server which had just shut down.
  if (!absl::IsUnavailable(status) && !absl::IsCancelled(status)) return std::nullopt;
  if (num_gateways_ == 1 && tokens_received == 0) return std::nullopt;
  if (tokens_received > tokens_before_) failures_without_progress_ = 0;
  tokens_before_ = tokens_received;
  ++attempt_;
  const size_t rounds = failures_without_progress_++ / num_gateways_;
  if (rounds >= kRoundsWithoutProgress) return std::nullopt;
  // Each gateway is tried once without waiting, then all again after longer and longer pauses.
  const bool same_again = failures_without_progress_ >= num_gateways_;
  return same_again ? kFirstPause * (1 << rounds) : absl::ZeroDuration();
}

absl::Status GenerateAtGateways(const GenerateOptions& options, Transcript& transcript,
                                const std::function<void(const GeneratedPiece&)>& on_piece,
                                std::ostream& notes) {
  const absl::Time start = absl::Now();
  GatewayChoice choice(options.gateways.size());
  while (true) {
    const absl::Status status = GenerateOnce(options, options.gateways[choice.index()], transcript,
                                             [&](const GeneratedPiece& piece) {
                                               if (transcript.Add(piece, absl::Now() - start))
                                                 on_piece(piece);
                                             });
    if (status.ok() && transcript.complete()) return status;
    if (status.ok()) {
      return absl::DataLossError("the gateway ended the stream before every sample was finished");
    }
    const auto pause = choice.AfterFailure(status, TokensReceived(transcript));
    if (!pause || absl::Now() + *pause > options.deadline) return status;
    notes << "\n[" << status.message() << "; going on at " << options.gateways[choice.index()]
          << "]\n";
    absl::SleepFor(*pause);
  }
}

absl::Status RunGenerate(const GenerateOptions& options, GenerateOutput output, std::ostream& out,
                         std::ostream& notes) {
  Transcript transcript(options.sampling.n);
  const bool streams = output == GenerateOutput::kText && options.sampling.n == 1;
  const auto print = [&](const GeneratedPiece& piece) {
    if (streams) out << piece.text << std::flush;
  };
  const absl::Status status = GenerateAtGateways(options, transcript, print, notes);
  if (streams) {
    out << std::endl;
  } else if (status.ok()) {
    PrintSamples(transcript, output, out);
  }
  RETURN_IF_ERROR(status);
  if (output == GenerateOutput::kText) PrintSpeed(transcript, notes);
  return absl::OkStatus();
}

}  // namespace sauva
