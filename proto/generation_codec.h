#pragma once

#include "absl/status/statusor.h"
#include "proto/generation.h"
#include "sauva/v1/generation.pb.h"
#include "sauva/v1/stage.pb.h"

// Translates the words of generation between plain values and protobuf, and checks what
// comes in, once: behind the codec every value is in its documented range.
namespace sauva {

// Limits of a request; docs name them, errors quote them.
inline constexpr int kMaxSamples = 64;
inline constexpr int kMaxStopTexts = 16;
inline constexpr int kMaxStopTextBytes = 256;
inline constexpr int kMaxStopTokens = 64;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr int kMaxReportedLogprobs = 20;

// Errors: INVALID_ARGUMENT naming the field, the limit and the value found.
absl::StatusOr<SamplingParams> FromProto(const v1::SamplingParams& in);
void ToProto(const SamplingParams& in, v1::SamplingParams* out);

TokenLogprobs FromProto(const v1::TokenLogprobs& in);
void ToProto(const TokenLogprobs& in, v1::TokenLogprobs* out);

// Errors: INVALID_ARGUMENT for a number that is no reason.
absl::StatusOr<FinishReason> FromProto(v1::FinishReason in);
v1::FinishReason ToProto(FinishReason in);

// Errors: INVALID_ARGUMENT naming the field; sampling needs seed and max_tokens.
absl::StatusOr<SequenceRequest> FromProto(const v1::SequenceRequest& in);
void ToProto(const SequenceRequest& in, v1::SequenceRequest* out);

// Errors: INVALID_ARGUMENT when there are log-probabilities for some tokens only.
absl::StatusOr<SequenceTokens> FromProto(const v1::SequenceTokens& in);
void ToProto(const SequenceTokens& in, v1::SequenceTokens* out);

}  // namespace sauva
