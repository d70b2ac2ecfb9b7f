#include "proto/generation_codec.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/control_codec.h"

namespace sauva {
namespace {

// One range for a number; NaN is outside every range.
struct Range {
  const char* field;
  double low;
  double high;
  bool low_open = false;   // low itself is outside
  bool high_open = false;  // high itself is outside
};

absl::Status CheckRange(const Range& range, double value) {
  const bool above = range.low_open ? value > range.low : value >= range.low;
  const bool below = range.high_open ? value < range.high : value <= range.high;
  if (above && below) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "sampling.", range.field, " is ", value, "; it must lie in ", range.low_open ? "(" : "[",
      range.low, ", ", range.high, range.high_open ? ")" : "]"));
}

absl::Status CheckCount(const char* field, int64_t found, int64_t limit) {
  if (found <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", field, " is ", found, "; the limit is ", limit));
}

absl::Status ReadNumbers(const v1::SamplingParams& in, SamplingParams& out) {
  if (in.has_temperature()) out.temperature = in.temperature();
  if (in.has_top_p()) out.top_p = in.top_p();
  if (in.has_repetition_penalty()) out.repetition_penalty = in.repetition_penalty();
  out.min_p = in.min_p();
  out.presence_penalty = in.presence_penalty();
  out.frequency_penalty = in.frequency_penalty();
  RETURN_IF_ERROR(CheckRange({"temperature", 0, 100}, out.temperature));
  RETURN_IF_ERROR(CheckRange({"top_p", 0, 1, /*low_open=*/true}, out.top_p));
  RETURN_IF_ERROR(CheckRange({"min_p", 0, 1, false, /*high_open=*/true}, out.min_p));
  RETURN_IF_ERROR(CheckRange({"repetition_penalty", 0, 100, true}, out.repetition_penalty));
  RETURN_IF_ERROR(CheckRange({"presence_penalty", -2, 2}, out.presence_penalty));
  RETURN_IF_ERROR(CheckRange({"frequency_penalty", -2, 2}, out.frequency_penalty));
  RETURN_IF_ERROR(CheckCount("top_k", in.top_k(), 1 << 30));
  RETURN_IF_ERROR(CheckCount("max_tokens", in.max_tokens(), 1 << 30));
  RETURN_IF_ERROR(CheckCount("n", in.n(), kMaxSamples));
  RETURN_IF_ERROR(CheckCount("logprobs", in.logprobs(), kMaxReportedLogprobs));
  out.top_k = static_cast<int>(in.top_k());
  out.max_tokens = static_cast<int>(in.max_tokens());
  out.n = in.n() == 0 ? 1 : static_cast<int>(in.n());
  out.logprobs = static_cast<int>(in.logprobs());
  return absl::OkStatus();
}

absl::Status ReadLists(const v1::SamplingParams& in, SamplingParams& out) {
  RETURN_IF_ERROR(CheckCount("stop (entries)", in.stop_size(), kMaxStopTexts));
  RETURN_IF_ERROR(CheckCount("stop_token_ids (entries)", in.stop_token_ids_size(), kMaxStopTokens));
  RETURN_IF_ERROR(CheckCount("logit_bias (entries)", in.logit_bias_size(), kMaxLogitBias));
  for (const std::string& stop : in.stop()) {
    if (stop.empty()) return absl::InvalidArgumentError("sampling.stop has an empty text");
    RETURN_IF_ERROR(CheckCount("stop (bytes of one text)", static_cast<int64_t>(stop.size()),
                               kMaxStopTextBytes));
    out.stop.push_back(stop);
  }
  out.stop_tokens.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  for (const v1::LogitBias& entry : in.logit_bias()) {
    RETURN_IF_ERROR(CheckRange({"logit_bias.bias", -1000, 1000}, entry.bias()));
    out.logit_bias.push_back({entry.token_id(), entry.bias()});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SamplingParams> FromProto(const v1::SamplingParams& in) {
  SamplingParams out;
  RETURN_IF_ERROR(ReadNumbers(in, out));
  RETURN_IF_ERROR(ReadLists(in, out));
  if (in.has_seed()) out.seed = in.seed();
  out.ignore_eos = in.ignore_eos();
  return out;
}

void ToProto(const SamplingParams& in, v1::SamplingParams* out) {
  out->set_temperature(in.temperature);
  out->set_top_p(in.top_p);
  out->set_top_k(static_cast<uint32_t>(in.top_k));
  out->set_min_p(in.min_p);
  out->set_repetition_penalty(in.repetition_penalty);
  out->set_presence_penalty(in.presence_penalty);
  out->set_frequency_penalty(in.frequency_penalty);
  out->set_max_tokens(static_cast<uint32_t>(in.max_tokens));
  out->mutable_stop()->Assign(in.stop.begin(), in.stop.end());
  out->mutable_stop_token_ids()->Assign(in.stop_tokens.begin(), in.stop_tokens.end());
  if (in.seed.has_value()) out->set_seed(*in.seed);
  out->set_n(static_cast<uint32_t>(in.n));
  out->set_logprobs(static_cast<uint32_t>(in.logprobs));
  for (const LogitBias& entry : in.logit_bias) {
    v1::LogitBias* added = out->add_logit_bias();
    added->set_token_id(entry.token);
    added->set_bias(entry.bias);
  }
  out->set_ignore_eos(in.ignore_eos);
}

TokenLogprobs FromProto(const v1::TokenLogprobs& in) {
  TokenLogprobs out;
  out.chosen = {in.chosen().token_id(), in.chosen().logprob()};
  for (const v1::TokenLogprob& entry : in.top()) {
    out.top.push_back({entry.token_id(), entry.logprob()});
  }
  return out;
}

void ToProto(const TokenLogprobs& in, v1::TokenLogprobs* out) {
  out->mutable_chosen()->set_token_id(in.chosen.token);
  out->mutable_chosen()->set_logprob(in.chosen.logprob);
  for (const TokenLogprob& entry : in.top) {
    v1::TokenLogprob* added = out->add_top();
    added->set_token_id(entry.token);
    added->set_logprob(entry.logprob);
  }
}

absl::StatusOr<FinishReason> FromProto(v1::FinishReason in) {
  switch (in) {
    case v1::FINISH_REASON_UNSPECIFIED:
      return FinishReason::kNone;
    case v1::FINISH_REASON_STOP:
      return FinishReason::kStop;
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::kLength;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("finish_reason is ", static_cast<int>(in), ", which this version lacks"));
  }
}

v1::FinishReason ToProto(FinishReason in) {
  switch (in) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kNone:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

absl::StatusOr<SequenceRequest> FromProto(const v1::SequenceRequest& in) {
  SequenceRequest out;
  out.epoch = in.epoch();
  out.request_id = in.request_id();
  out.sample_index = in.sample_index();
  out.prompt.assign(in.prompt().begin(), in.prompt().end());
  out.resumed.assign(in.resumed().begin(), in.resumed().end());
  ASSIGN_OR_RETURN(out.sampling, FromProto(in.sampling()));
  if (!out.sampling.seed.has_value()) {
    return absl::InvalidArgumentError("sampling.seed is unset; a gateway always sets it");
  }
  if (out.sampling.max_tokens == 0) {
    return absl::InvalidArgumentError("sampling.max_tokens is 0; a gateway always sets it");
  }
  out.eos_tokens.assign(in.eos_token_ids().begin(), in.eos_token_ids().end());
  out.with_phases = in.with_phases();
  return out;
}

void ToProto(const SequenceRequest& in, v1::SequenceRequest* out) {
  out->set_epoch(in.epoch);
  out->set_request_id(in.request_id);
  out->set_sample_index(in.sample_index);
  out->mutable_prompt()->Assign(in.prompt.begin(), in.prompt.end());
  out->mutable_resumed()->Assign(in.resumed.begin(), in.resumed.end());
  ToProto(in.sampling, out->mutable_sampling());
  out->mutable_eos_token_ids()->Assign(in.eos_tokens.begin(), in.eos_tokens.end());
  out->set_with_phases(in.with_phases);
}

namespace {

absl::StatusOr<StepPhase> FromProto(const v1::StepPhase& in) {
  if (in.stage_seconds_size() > kMaxStages) {
    return absl::InvalidArgumentError(absl::StrCat("a phase over ", in.stage_seconds_size(),
                                                   " stages; there are at most ", kMaxStages));
  }
  if (!(in.begin_seconds() >= 0 && in.end_seconds() >= in.begin_seconds() &&
        std::isfinite(in.end_seconds()))) {
    return absl::InvalidArgumentError(
        absl::StrCat("a phase from ", in.begin_seconds(), " s to ", in.end_seconds(), " s"));
  }
  return StepPhase{.kind = in.decode() ? StepPhase::Kind::kDecode : StepPhase::Kind::kPrefill,
                   .begin_seconds = in.begin_seconds(),
                   .end_seconds = in.end_seconds(),
                   .steps = in.steps(),
                   .tokens = in.tokens(),
                   .stage_seconds = {in.stage_seconds().begin(), in.stage_seconds().end()}};
}

void ToProto(const StepPhase& in, v1::StepPhase* out) {
  out->set_decode(in.kind == StepPhase::Kind::kDecode);
  out->set_begin_seconds(in.begin_seconds);
  out->set_end_seconds(in.end_seconds);
  out->set_steps(in.steps);
  out->set_tokens(in.tokens);
  out->mutable_stage_seconds()->Assign(in.stage_seconds.begin(), in.stage_seconds.end());
}

}  // namespace

absl::StatusOr<SequenceTokens> FromProto(const v1::SequenceTokens& in) {
  SequenceTokens out;
  out.first_index = in.first_index();
  out.tokens.assign(in.token_ids().begin(), in.token_ids().end());
  if (in.logprobs_size() != 0 && in.logprobs_size() != in.token_ids_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("logprobs for ", in.logprobs_size(), " of ", in.token_ids_size(), " tokens"));
  }
  for (const v1::TokenLogprobs& entry : in.logprobs()) out.logprobs.push_back(FromProto(entry));
  ASSIGN_OR_RETURN(out.finish, FromProto(in.finish_reason()));
  out.cached_tokens = in.cached_tokens();
  out.numerics_id = in.numerics_id();
  if (in.phases_size() > static_cast<int>(kMaxStepPhases)) {
    return absl::InvalidArgumentError(
        absl::StrCat(in.phases_size(), " phases; there are at most ", kMaxStepPhases));
  }
  for (const v1::StepPhase& phase : in.phases()) {
    ASSIGN_OR_RETURN(StepPhase known, FromProto(phase));
    out.phases.push_back(std::move(known));
  }
  return out;
}

void ToProto(const SequenceTokens& in, v1::SequenceTokens* out) {
  out->set_first_index(in.first_index);
  out->mutable_token_ids()->Assign(in.tokens.begin(), in.tokens.end());
  for (const TokenLogprobs& entry : in.logprobs) ToProto(entry, out->add_logprobs());
  out->set_finish_reason(ToProto(in.finish));
  out->set_cached_tokens(in.cached_tokens);
  out->set_numerics_id(in.numerics_id);
  for (const StepPhase& phase : in.phases) ToProto(phase, out->add_phases());
}

}  // namespace sauva
