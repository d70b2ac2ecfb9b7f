#include "gateway/generate_codec.h"

#include <utility>

#include "base/status_macros.h"
#include "proto/generation_codec.h"

namespace sauva {

namespace {

ChatInput FromProto(const v1::ChatMessages& in) {
  ChatInput out;
  for (const v1::ChatMessage& message : in.messages()) {
    out.turns.push_back({.role = message.role(), .content = message.content()});
  }
  return out;
}

}  // namespace

absl::StatusOr<GenerateInput> FromProto(const v1::GenerateRequest& in) {
  GenerateInput out{.model = in.model(),
                    .request_id = in.request_id(),
                    .tenant = in.tenant(),
                    .priority = in.priority(),
                    .prompt = {},
                    .sampling = {},
                    .resume = {}};
  ASSIGN_OR_RETURN(out.sampling, FromProto(in.sampling()));
  switch (in.prompt_case()) {
    case v1::GenerateRequest::kText:
      out.prompt = in.text();
      break;
    case v1::GenerateRequest::kTokenIds:
      out.prompt = std::vector<TokenId>(in.token_ids().ids().begin(), in.token_ids().ids().end());
      break;
    case v1::GenerateRequest::kMessages:
      out.prompt = FromProto(in.messages());
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  for (const v1::ResumeTokens& resume : in.resume_tokens()) {
    out.resume.push_back(
        {resume.sample_index(), {resume.token_ids().begin(), resume.token_ids().end()}});
  }
  return out;
}

namespace {

void ToProto(const SampleUsage& in, v1::Usage* out) {
  out->set_prompt_tokens(in.prompt_tokens);
  out->set_completion_tokens(in.completion_tokens);
  out->set_cached_tokens(in.cached_tokens);
  out->set_resumes(in.resumes);
  if (in.exact_resume) out->set_exact_resume(*in.exact_resume);
  out->set_time_to_first_token_ms(absl::ToDoubleMilliseconds(in.time_to_first_token));
  out->set_total_ms(absl::ToDoubleMilliseconds(in.total_time));
}

}  // namespace

v1::GenerateResponse ToProto(SampleOutput in) {
  v1::GenerateResponse out;
  out.set_request_id(std::move(in.request_id));
  out.set_sample_index(in.sample_index);
  out.set_text(std::move(in.text));
  out.mutable_token_ids()->Assign(in.tokens.begin(), in.tokens.end());
  for (const TokenLogprobs& logprobs : in.logprobs) sauva::ToProto(logprobs, out.add_logprobs());
  out.set_finish_reason(sauva::ToProto(in.finish));
  if (in.header) {
    out.set_seed(in.header->seed);
    out.set_model(std::move(in.header->model));
    out.set_numerics_id(std::move(in.header->numerics_id));
  }
  if (in.usage) ToProto(*in.usage, out.mutable_usage());
  return out;
}

}  // namespace sauva
