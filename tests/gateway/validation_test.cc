#include "gateway/validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "gateway/generate_codec.h"
#include "tests/gateway/word_tokenizer.h"

namespace sauva::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TokenizedModel SmallModel() {
  TokenizedModel model;
  model.ref = {.name = "small", .digest = "d1"};
  model.max_context = 16;
  model.vocab_size = 300;
  model.eos_tokens = {WordTokenizer::kEnd};
  model.tokenizer = std::make_unique<WordTokenizer>();
  return model;
}

// A request as it comes from the network, all the way to samples.
absl::StatusOr<std::vector<SampleRequest>> Prepare(const v1::GenerateRequest& request,
                                                   const TokenizedModel& model = SmallModel()) {
  auto input = FromProto(request);
  if (!input.ok()) return input.status();
  auto valid = ValidateRequest(*std::move(input));
  if (!valid.ok()) return valid.status();
  return BindToModel(*valid, model, {.request_id = "made", .seed = 99});
}

v1::GenerateRequest Plain() {
  v1::GenerateRequest request;
  request.set_text("hello");
  return request;
}

TEST(ValidationTest, FillsInWhatACallerLeavesOut) {
  const auto samples = Prepare(Plain());
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 1u);
  const SampleRequest& sample = samples->front();
  EXPECT_EQ(sample.request_id, "made");
  EXPECT_EQ(sample.prompt.size(), 6u) << "with the beginning of text";
  EXPECT_EQ(sample.rules.sampling.max_tokens, 10) << "the rest of the context";
  EXPECT_EQ(*sample.rules.sampling.seed, 99u);
  EXPECT_EQ(sample.rules.sampling.temperature, 1);
  EXPECT_EQ(sample.rules.sampling.top_p, 1);
  EXPECT_EQ(sample.rules.start, IncrementalDecoder::Start::kContinuation);
  EXPECT_THAT(sample.rules.eos_tokens, ElementsAre(WordTokenizer::kEnd));
}

TEST(ValidationTest, ClipsTheCompletionToTheContext) {
  for (const auto& [asked, given] :
       {std::pair<uint32_t, int>{0, 10}, {1, 1}, {9, 9}, {10, 10}, {11, 10}, {1u << 30, 10}}) {
    v1::GenerateRequest request = Plain();
    request.mutable_sampling()->set_max_tokens(asked);
    EXPECT_EQ(Prepare(request)->front().rules.sampling.max_tokens, given) << asked;
  }
}

TEST(ValidationTest, AcceptsAPromptUpToOneTokenLessThanTheContext) {
  v1::GenerateRequest request;
  for (int i = 0; i < 15; ++i) request.mutable_token_ids()->add_ids(i);
  EXPECT_EQ(Prepare(request)->front().rules.sampling.max_tokens, 1);
  request.mutable_token_ids()->add_ids(1);
  const absl::Status status = Prepare(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 16 tokens"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds 16"));
}

TEST(ValidationTest, ACompletionOfSpecialTokensOnlyBeginsTheText) {
  v1::GenerateRequest request = Plain();
  request.set_text("");
  const auto samples = Prepare(request);
  ASSERT_TRUE(samples.ok());
  EXPECT_EQ(samples->front().rules.start, IncrementalDecoder::Start::kText);
}

TEST(ValidationTest, MakesOneSamplePerNWithItsOwnResumedTokens) {
  v1::GenerateRequest request = Plain();
  request.mutable_sampling()->set_n(3);
  request.mutable_sampling()->set_seed(5);
  auto* resume = request.add_resume_tokens();
  resume->set_sample_index(2);
  resume->add_token_ids(65);
  const auto samples = Prepare(request);
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 3u);
  EXPECT_EQ((*samples)[1].sample_index, 1u);
  EXPECT_TRUE((*samples)[1].resumed.empty());
  EXPECT_THAT((*samples)[2].resumed, ElementsAre(65));
  EXPECT_EQ(*(*samples)[2].rules.sampling.seed, 5u);
}

struct BadRequest {
  std::string name;
  std::function<void(v1::GenerateRequest&)> spoil;
  std::string says;  // part of the message
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

class BadRequestTest : public ::testing::TestWithParam<BadRequest> {};

TEST_P(BadRequestTest, IsRefusedAndNamed) {
  v1::GenerateRequest request = Plain();
  GetParam().spoil(request);
  const absl::Status status = Prepare(request).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().says));
}

using Request = v1::GenerateRequest;

std::vector<BadRequest> BadNumbers() {
  const auto sampling = [](std::string name, std::string says,
                           std::function<void(v1::SamplingParams&)> spoil) {
    return BadRequest{std::move(name), [spoil](Request& r) { spoil(*r.mutable_sampling()); },
                      std::move(says)};
  };
  return {
      sampling("TemperatureNan", "temperature", [](auto& s) { s.set_temperature(NAN); }),
      sampling("TemperatureNegative", "temperature is -1", [](auto& s) { s.set_temperature(-1); }),
      sampling("TemperatureInfinite", "temperature", [](auto& s) { s.set_temperature(kInfinity); }),
      sampling("TopPZero", "top_p is 0", [](auto& s) { s.set_top_p(0); }),
      sampling("TopPAboveOne", "top_p is 1.5", [](auto& s) { s.set_top_p(1.5); }),
      sampling("TopPNan", "top_p", [](auto& s) { s.set_top_p(NAN); }),
      sampling("MinPNegative", "min_p", [](auto& s) { s.set_min_p(-0.1f); }),
      sampling("MinPNan", "min_p", [](auto& s) { s.set_min_p(NAN); }),
      sampling("RepetitionPenaltyZero", "repetition_penalty",
               [](auto& s) { s.set_repetition_penalty(0); }),
      sampling("RepetitionPenaltyNegative", "repetition_penalty",
               [](auto& s) { s.set_repetition_penalty(-2); }),
      sampling("PresencePenaltyHuge", "presence_penalty",
               [](auto& s) { s.set_presence_penalty(2.5); }),
      sampling("FrequencyPenaltyInfinite", "frequency_penalty",
               [](auto& s) { s.set_frequency_penalty(-kInfinity); }),
      sampling("TooManySamples", "n is 65", [](auto& s) { s.set_n(65); }),
      sampling("TooManyLogprobs", "logprobs is 21", [](auto& s) { s.set_logprobs(21); }),
      sampling("MaxTokensHuge", "max_tokens", [](auto& s) { s.set_max_tokens(~0u); }),
      sampling("LogitBiasNan", "logit_bias", [](auto& s) { s.add_logit_bias()->set_bias(NAN); }),
      sampling("LogitBiasToken", "logit_bias.token_id[0] is 300",
               [](auto& s) { s.add_logit_bias()->set_token_id(300); }),
      sampling("TooManyLogitBiases", "1025",
               [](auto& s) {
                 for (int i = 0; i < 1025; ++i) s.add_logit_bias();
               }),
  };
}

std::vector<BadRequest> BadLists() {
  return {
      {"StopEmpty", [](Request& r) { r.mutable_sampling()->add_stop(""); }, "stop"},
      {"StopTooLong", [](Request& r) { r.mutable_sampling()->add_stop(std::string(257, 'x')); },
       "257"},
      {"StopNotUtf8", [](Request& r) { r.mutable_sampling()->add_stop("a\xff"); },
       "stop[0] is not valid UTF-8 at byte 1"},
      {"TooManyStops",
       [](Request& r) {
         for (int i = 0; i < 17; ++i) r.mutable_sampling()->add_stop("x");
       },
       "17"},
      {"TooManyStopTokens",
       [](Request& r) {
         for (int i = 0; i < 65; ++i) r.mutable_sampling()->add_stop_token_ids(1);
       },
       "65"},
      {"StopTokenOutside", [](Request& r) { r.mutable_sampling()->add_stop_token_ids(-1); },
       "stop_token_ids[0] is -1"},
      {"NoPrompt", [](Request& r) { r.clear_prompt(); }, "prompt is not set"},
      {"NoTokens", [](Request& r) { r.mutable_token_ids(); }, "token_ids is empty"},
      {"TokenTooLarge", [](Request& r) { r.mutable_token_ids()->add_ids(300); },
       "token_ids[0] is 300"},
      {"TokenNegative", [](Request& r) { r.mutable_token_ids()->add_ids(-1); },
       "token_ids[0] is -1"},
      {"TextNotUtf8", [](Request& r) { r.set_text("ab\xc3("); },
       "prompt.text is not valid UTF-8 at byte 2"},
      {"NoMessages", [](Request& r) { r.mutable_messages(); }, "prompt.messages has 0 entries"},
      {"NoRole", [](Request& r) { r.mutable_messages()->add_messages()->set_content("x"); },
       "prompt.messages[0].role is empty"},
      {"NoTemplate", [](Request& r) { r.mutable_messages()->add_messages()->set_role("user"); },
       "model small has no chat template; send prompt.text"},
      {"RequestIdTooLong", [](Request& r) { r.set_request_id(std::string(129, 'x')); },
       "request_id has 129 bytes"},
      {"RequestIdWithControl", [](Request& r) { r.set_request_id("a\nb"); },
       "request_id holds a control character"},
      {"TenantNotUtf8", [](Request& r) { r.set_tenant("\xf8"); }, "tenant is not valid UTF-8"},
      {"ModelTooLong", [](Request& r) { r.set_model(std::string(129, 'm')); }, "model has 129"},
  };
}

std::vector<BadRequest> BadResumes() {
  const auto resume = [](Request& r, uint32_t index, int tokens) {
    r.mutable_sampling()->set_seed(1);
    auto* added = r.add_resume_tokens();
    added->set_sample_index(index);
    for (int i = 0; i < tokens; ++i) added->add_token_ids(65);
  };
  return {
      {"ResumeWithoutSeed", [](Request& r) { r.add_resume_tokens()->add_token_ids(1); },
       "need sampling.seed"},
      {"ResumeOfNoSample", [resume](Request& r) { resume(r, 1, 1); }, "sample_index is 1"},
      {"ResumeTwice",
       [resume](Request& r) {
         resume(r, 0, 1);
         resume(r, 0, 1);
       },
       "sample 0 twice"},
      {"ResumeBeyondMaxTokens", [resume](Request& r) { resume(r, 0, 11); },
       "hold 11 tokens; the completion at most 10"},
      {"ResumeTokenOutside",
       [resume](Request& r) {
         resume(r, 0, 1);
         r.mutable_resume_tokens(0)->set_token_ids(0, 300);
       },
       "resume_tokens.token_ids[0] is 300"},
  };
}

std::string NameOf(const ::testing::TestParamInfo<BadRequest>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Numbers, BadRequestTest, ::testing::ValuesIn(BadNumbers()), NameOf);
INSTANTIATE_TEST_SUITE_P(Lists, BadRequestTest, ::testing::ValuesIn(BadLists()), NameOf);
INSTANTIATE_TEST_SUITE_P(Resumes, BadRequestTest, ::testing::ValuesIn(BadResumes()), NameOf);

TEST(ValidationTest, RefusesAPromptWithoutAnyToken) {
  class NoBegin final : public Tokenizer {
   public:
    absl::StatusOr<std::vector<int32_t>> Encode(std::string_view, Special) const override {
      return std::vector<int32_t>();
    }
    std::string PieceBytes(int32_t) const override { return ""; }
    absl::StatusOr<std::string> Decode(const std::vector<int32_t>&) const override { return ""; }
    bool DropsLeadingSpace() const override { return false; }
    int vocab_size() const override { return 300; }
  };
  TokenizedModel model = SmallModel();
  model.tokenizer = std::make_unique<NoBegin>();
  v1::GenerateRequest request = Plain();
  request.set_text("");
  const absl::Status status = Prepare(request, model).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("prompt.text is empty"));
}

v1::GenerateRequest Chat(const std::string& role, const std::string& content) {
  v1::GenerateRequest request;
  v1::ChatMessage* message = request.mutable_messages()->add_messages();
  message->set_role(role);
  message->set_content(content);
  return request;
}

TokenizedModel ChatModel(const std::string& source) {
  TokenizedModel model = SmallModel();
  auto made = ChatTemplate::Create(source, {});
  model.chat_trouble = made.status();
  if (made.ok()) model.chat_template = *std::move(made);
  return model;
}

TEST(ChatTest, MessagesBecomeTheTokensOfTheirRenderedTextAndNoOthers) {
  const TokenizedModel model = ChatModel("{{ messages[0].role }}: {{ messages[0].content }}!");
  const auto samples = Prepare(Chat("user", "hi"), model);
  ASSERT_TRUE(samples.ok()) << samples.status();
  const auto expected = model.tokenizer->Encode("user: hi!", Tokenizer::Special::kNone);
  EXPECT_EQ(samples->front().prompt, *expected);
}

TEST(ChatTest, WhatTheTemplateRefusesIsToldToTheCaller) {
  const auto refused =
      Prepare(Chat("user", "hi"), ChatModel("{{ raise_exception('only a king may speak') }}"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("only a king may speak"));
}

TEST(ChatTest, ATemplateThatIsNotUnderstoodIsNamed) {
  const auto refused = Prepare(Chat("user", "hi"), ChatModel("{% import 'x' %}"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("'import'"));
}

TEST(ChatTest, TextThatRendersToNothingIsRefused) {
  const auto refused = Prepare(Chat("user", "hi"), ChatModel("{{ '' }}"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sauva::testing
