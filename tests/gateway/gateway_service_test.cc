#include "gateway/gateway_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "tests/gateway/gateway_fixture.h"

namespace sauva::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kServiceName = "sauva.v1.GenerationService";

TEST_F(GatewayTest, StreamsTextWithSeedModelAndUsage) {
  FakeHead head("a tale of ünï 😀");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  const Received got = Generate(Ask("Once"));
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.text, "a tale of ünï 😀");
  EXPECT_EQ(got.tokens.size(), got.text.size() + 1);
  EXPECT_EQ(got.tokens.back(), kEndToken);
  const v1::GenerateResponse& first = got.responses.front();
  EXPECT_EQ(first.seed(), 7u);
  EXPECT_EQ(first.model(), "bytes");
  EXPECT_EQ(first.numerics_id(), "n1");
  EXPECT_FALSE(first.request_id().empty());
  const v1::GenerateResponse& last = got.responses.back();
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(last.usage().prompt_tokens(), 4u);
  EXPECT_EQ(last.usage().completion_tokens(), got.tokens.size());
  EXPECT_FALSE(last.usage().has_exact_resume());
  EXPECT_GT(last.usage().total_ms(), 0);
  const std::vector<SequenceRequest> asked = head.requests();
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].prompt, (std::vector<TokenId>{'O', 'n', 'c', 'e'}));
  EXPECT_EQ(asked[0].sampling.max_tokens, static_cast<int>(kContext) - 4);
  EXPECT_THAT(asked[0].eos_tokens, ElementsAre(kEndToken));
  EXPECT_EQ(Metric("sauva_request_success_total{finished_reason=\"stop\"}"), 1);
  EXPECT_EQ(Metric("sauva_prompt_tokens_total"), 4);
  EXPECT_EQ(Metric("sauva_generation_tokens_total"), static_cast<double>(got.tokens.size()));
  EXPECT_EQ(Metric("sauva_time_to_first_token_seconds_count"), 1);
  EXPECT_EQ(Metric("sauva_num_requests_running"), 0);
  EXPECT_EQ(Metric("sauva_num_requests_waiting"), 0);
}

TEST_F(GatewayTest, DrawsASeedForARequestWithoutOne) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  v1::GenerateRequest request = Ask("hi");
  request.mutable_sampling()->clear_seed();
  const Received one = Generate(request);
  const Received two = Generate(request);
  EXPECT_NE(one.responses.front().seed(), two.responses.front().seed());
  EXPECT_EQ(*head.requests()[0].sampling.seed, one.responses.front().seed());
}

TEST_F(GatewayTest, GoesOnAtAnotherHeadWithoutASeamWhenOneBreaks) {
  const std::string text = "the same words, whoever says them";
  FakeHead first(text);
  first.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Continue(request, text, 10);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "stage 1 is gone");
  });
  FakeHead second(text);
  FakeCoordinator coordinator({&first, &second});
  StartGateway(coordinator);
  const Received got = Generate(Ask("Once"));
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.text, text);
  EXPECT_EQ(got.usage().resumes(), 1u);
  EXPECT_TRUE(got.usage().exact_resume());
  ASSERT_EQ(second.requests().size(), 1u);
  EXPECT_EQ(second.requests()[0].resumed.size(), 10u);
  EXPECT_EQ(*second.requests()[0].sampling.seed, 7u);
  ASSERT_EQ(coordinator.dispatches().size(), 2u);
  EXPECT_THAT(coordinator.dispatches()[1].broken_epochs, ElementsAre(1u));
  EXPECT_EQ(Metric("sauva_resumes_total"), 1);
  EXPECT_EQ(Metric("sauva_inexact_resumes_total"), 0);
}

TEST_F(GatewayTest, GoesOnWhenAHeadsWholeServerGoesAway) {
  const std::string text = "words that outlive a process";
  FakeHead first(text);
  Signal said;
  first.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Continue(request, text, 5);
    said.Set();
    stream.WaitForCancel();
    return grpc::Status::OK;
  });
  FakeHead second(text);
  FakeCoordinator coordinator({&first, &second});
  StartGateway(coordinator);
  std::thread killer([&] {
    EXPECT_TRUE(said.Wait());
    first.Stop();
  });
  const Received got = Generate(Ask("Once"));
  killer.join();
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.text, text);
  EXPECT_EQ(got.usage().resumes(), 1u);
}

TEST_F(GatewayTest, SaysSoWhenItHadToResumeOnOtherNumerics) {
  const std::string text = "almost the same";
  FakeHead first(text);
  first.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Continue(request, text, 3);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  });
  FakeHead second(text, "n2");
  FakeCoordinator coordinator({&first, &second});
  coordinator.SetDispatch([&](const DispatchRequest& request) -> absl::StatusOr<DispatchReply> {
    const bool again = !request.broken_epochs.empty();
    if (request.require_numerics) return absl::UnavailableError("no pipeline of n1");
    return DispatchReply{.model = {"bytes", "digest-1"},
                         .epoch = again ? 2u : 1u,
                         .head_address = (again ? second : first).address(),
                         .numerics_id = again ? "n2" : "n1",
                         .max_context = kContext};
  });
  StartGateway(coordinator);
  const Received got = Generate(Ask("Once"));
  EXPECT_EQ(got.text, text);
  ASSERT_TRUE(got.usage().has_exact_resume());
  EXPECT_FALSE(got.usage().exact_resume());
  EXPECT_EQ(Metric("sauva_inexact_resumes_total"), 1);
}

TEST_F(GatewayTest, AClientGoesOnAtAnotherGateway) {
  const std::string text = "begun here, ended there";
  FakeHead head(text);
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  const Received begun = Generate(Ask("Once"), 6);
  EXPECT_EQ(begun.status.error_code(), grpc::StatusCode::CANCELLED);
  gateway.reset();
  StartGateway(coordinator);
  v1::GenerateRequest again = Ask("Once");
  again.mutable_sampling()->set_seed(begun.responses.front().seed());
  auto* resume = again.add_resume_tokens();
  resume->mutable_token_ids()->Assign(begun.tokens.begin(), begun.tokens.end());
  const Received rest = Generate(again);
  ASSERT_TRUE(rest.status.ok()) << rest.status.error_message();
  EXPECT_EQ(begun.text + rest.text, text);
  EXPECT_EQ(rest.usage().completion_tokens(), text.size() + 1);
  EXPECT_EQ(head.requests().back().resumed, begun.tokens);
}

TEST_F(GatewayTest, EndsAtAStopStringAndLetsTheHeadKnow) {
  FakeHead head("");
  Signal cancelled;
  head.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Continue(request, "tell me STOP and more", 20);
    if (stream.WaitForCancel()) cancelled.Set();
    return grpc::Status::OK;
  });
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  v1::GenerateRequest request = Ask("Once");
  request.mutable_sampling()->add_stop("STOP");
  const Received got = Generate(request);
  EXPECT_EQ(got.text, "tell me ");
  EXPECT_EQ(got.responses.back().finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(got.usage().completion_tokens(), 12u);
  EXPECT_TRUE(cancelled.Wait());
}

TEST_F(GatewayTest, ACancellingClientFreesTheHead) {
  FakeHead head("");
  Signal cancelled;
  head.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Continue(request, "three", 3);
    if (stream.WaitForCancel()) cancelled.Set();
    return grpc::Status::CANCELLED;
  });
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  const Received got = Generate(Ask("Once"), 3);
  EXPECT_EQ(got.text, "thr");
  EXPECT_TRUE(cancelled.Wait());
  EXPECT_TRUE(Eventually([&] { return Metric("sauva_num_requests_running") == 0; }));
  EXPECT_EQ(Metric("sauva_request_failures_total{reason=\"CANCELLED\"}"), 1);
}

TEST_F(GatewayTest, ADeadlineFreesTheHead) {
  FakeHead head("");
  Signal cancelled;
  head.SetScript([&](const SequenceRequest&, FakeHead::Stream& stream) {
    stream.Hello("n1");
    if (stream.WaitForCancel()) cancelled.Set();
    return grpc::Status::CANCELLED;
  });
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(500)));
  auto reader = client->Generate(&context, Ask("Once"));
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(cancelled.Wait());
}

TEST_F(GatewayTest, SamplesOfOneRequestShareADispatchAndAreToldApart) {
  FakeHead head("");
  head.SetScript([&](const SequenceRequest& request, FakeHead::Stream& stream) {
    stream.Hello("n1");
    stream.Continue(request, "sample " + std::to_string(request.sample_index));
    return grpc::Status::OK;
  });
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  v1::GenerateRequest request = Ask("Once");
  request.mutable_sampling()->set_n(3);
  const Received got = Generate(request);
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  std::map<uint32_t, std::string> texts;
  std::set<uint32_t> finished;
  for (const v1::GenerateResponse& response : got.responses) {
    texts[response.sample_index()] += response.text();
    if (response.has_usage()) finished.insert(response.sample_index());
  }
  EXPECT_EQ(texts,
            (std::map<uint32_t, std::string>{{0, "sample 0"}, {1, "sample 1"}, {2, "sample 2"}}));
  EXPECT_EQ(finished.size(), 3u);
  EXPECT_EQ(coordinator.dispatches().size(), 1u);
  EXPECT_EQ(head.requests().size(), 3u);
}

TEST_F(GatewayTest, RequestsOfABatchFailAlone) {
  FakeHead head("answer");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  v1::GenerateBatchRequest batch;
  *batch.add_requests() = Ask("one");
  *batch.add_requests() = Ask("two");
  batch.mutable_requests(1)->mutable_sampling()->set_temperature(std::nanf(""));
  *batch.add_requests() = Ask("");
  *batch.add_requests() = Ask("four");
  grpc::ClientContext context;
  auto reader = client->GenerateBatch(&context, batch);
  std::map<uint32_t, std::string> texts;
  std::map<uint32_t, std::string> failures;
  v1::GenerateBatchResponse response;
  while (reader->Read(&response)) {
    if (response.status_code() == 0) texts[response.request_index()] += response.response().text();
    if (response.status_code() == grpc::StatusCode::INVALID_ARGUMENT) {
      failures[response.request_index()] = response.status_message();
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(texts, (std::map<uint32_t, std::string>{{0, "answer"}, {3, "answer"}}));
  ASSERT_EQ(failures.size(), 2u);
  EXPECT_THAT(failures[1], HasSubstr("temperature"));
  EXPECT_THAT(failures[2], HasSubstr("empty"));
}

TEST_F(GatewayTest, RefusesABatchWithoutRequests) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  grpc::ClientContext context;
  auto reader = client->GenerateBatch(&context, v1::GenerateBatchRequest());
  v1::GenerateBatchResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GatewayTest, TokenizesAndListsModels) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  StartGateway(coordinator);
  ASSERT_TRUE(Eventually([&] { return IsServing(""); }));
  v1::TokenizeRequest request;
  request.set_text("aé");
  v1::TokenizeResponse tokens;
  grpc::ClientContext tokenize_context;
  ASSERT_TRUE(client->Tokenize(&tokenize_context, request, &tokens).ok());
  EXPECT_THAT(tokens.token_ids(), ElementsAre('a', 0xc3, 0xa9));
  EXPECT_THAT(tokens.pieces(), ElementsAre("a", "\xc3", "\xa9"));
  v1::ListModelsResponse models;
  grpc::ClientContext list_context;
  ASSERT_TRUE(client->ListModels(&list_context, v1::ListModelsRequest(), &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "bytes");
  EXPECT_EQ(models.models(0).max_context(), kContext);
}

TEST_F(GatewayTest, IsServingOnlyWhileAPipelineIsReady) {
  FakeHead head("x");
  FakeCoordinator coordinator({&head});
  coordinator.SetReadyPipelines(0);
  StartGateway(coordinator);
  v1::TokenizeRequest request;
  request.set_text("a");
  EXPECT_TRUE(Eventually([&] {  // the model is known by then
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    return client->Tokenize(&context, request, &response).ok();
  }));
  EXPECT_FALSE(IsServing(""));
  EXPECT_FALSE(IsServing(kServiceName));
  coordinator.SetReadyPipelines(1);
  EXPECT_TRUE(Eventually([&] { return IsServing("") && IsServing(kServiceName); }));
  coordinator.SetReadyPipelines(0);
  EXPECT_TRUE(Eventually([&] { return !IsServing(kServiceName); }));
}

}  // namespace
}  // namespace sauva::testing
