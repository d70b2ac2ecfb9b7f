#include <gtest/gtest.h>

#include "tests/e2e/stream_client.h"

// Clients that give up or run out of time: what they held is freed, and the others are not
// disturbed.
namespace sauva {
namespace {

class ClientTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto started = TestCluster::Start({"--stages", "2"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_F(ClientTest, ACancelledStreamFreesItsBlocksAndDisturbsNobody) {
  const auto request = SampledRequest(Prompts()[1], 120, 5);
  const Outcome undisturbed = Generate(cluster_->gateway(), request);
  StreamClient leaves(cluster_->gateway(), SampledRequest(Prompts()[0], 400, 4));
  StreamClient stays(cluster_->gateway(), request);
  ASSERT_TRUE(leaves.AwaitTokens(5));
  leaves.Cancel();
  EXPECT_EQ(leaves.Finish().status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(stays.Finish().tokens, undisturbed.tokens);
  EXPECT_TRUE(cluster_->AwaitIdle());
}

TEST_F(ClientTest, APassedDeadlineFreesTheBlocks) {
  StreamClient stream(cluster_->gateway(), SampledRequest(Prompts()[0], 1000, 4),
                      absl::Milliseconds(500));
  const Outcome outcome = stream.Finish();
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_GT(outcome.tokens.size(), 0u) << "it never ran";
  EXPECT_TRUE(cluster_->AwaitIdle());
}

TEST_F(ClientTest, SamplesOfOneRequestDifferAndRepeatWithTheSeed) {
  v1::GenerateRequest request = SampledRequest(Prompts()[2], 24, 11);
  request.mutable_sampling()->set_n(4);
  const auto run = [&] {
    const auto stub = GatewayStub(cluster_->gateway());
    grpc::ClientContext context;
    const auto call = stub->Generate(&context, request);
    std::vector<std::vector<int32_t>> samples(4);
    v1::GenerateResponse response;
    while (call->Read(&response)) {
      auto& sample = samples.at(response.sample_index());
      sample.insert(sample.end(), response.token_ids().begin(), response.token_ids().end());
    }
    EXPECT_TRUE(call->Finish().ok());
    return samples;
  };
  const auto first = run();
  EXPECT_EQ(run(), first);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(first[i].size(), 24u);
    for (size_t j = 0; j < i; ++j) EXPECT_NE(first[i], first[j]);
  }
}

TEST_F(ClientTest, AResumedRequestContinuesWhereItWasToldTo) {
  const v1::GenerateRequest request = SampledRequest(Prompts()[3], 40, 12);
  const Outcome whole = Generate(cluster_->gateway(), request);
  v1::GenerateRequest rest = request;
  v1::ResumeTokens* resume = rest.add_resume_tokens();
  for (size_t i = 0; i < 15; ++i) resume->add_token_ids(whole.tokens.at(i));
  const Outcome continued = Generate(cluster_->gateway(), rest);
  ASSERT_TRUE(continued.status.ok()) << continued.status.error_message();
  const std::vector<int32_t> expected(whole.tokens.begin() + 15, whole.tokens.end());
  EXPECT_EQ(continued.tokens, expected);
  EXPECT_EQ(continued.usage.completion_tokens(), 40u) << "resumed tokens count";
}

TEST_F(ClientTest, StopTextEndsASampleBeforeIt) {
  const Outcome whole = Generate(cluster_->gateway(), GreedyRequest(Prompts()[4], 60));
  ASSERT_GT(whole.text.size(), 30u);
  const std::string stop = whole.text.substr(20, 4);
  v1::GenerateRequest request = GreedyRequest(Prompts()[4], 60);
  request.mutable_sampling()->add_stop(stop);
  const Outcome cut = Generate(cluster_->gateway(), request);
  EXPECT_EQ(cut.finish, v1::FINISH_REASON_STOP);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
}

}  // namespace
}  // namespace sauva
