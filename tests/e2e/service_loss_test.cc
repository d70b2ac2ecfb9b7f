#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "tests/e2e/extra_gateway.h"
#include "tests/e2e/stream_client.h"

// A pipeline among several, the coordinator or a gateway dies.
namespace sauva {
namespace {

constexpr uint32_t kNumTokens = 160;

std::vector<v1::GenerateRequest> EightRequests() {
  return MixedRequests({.sampled = 8}, kNumTokens);
}

TEST(ReplicaLossTest, TheOtherPipelineCarriesOn) {
  auto started = TestCluster::Start({"--stages", "2", "--replicas", "2", "--no-restart"});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  ASSERT_TRUE(cluster.AwaitReadyPipelines(2));
  const std::vector<Outcome> undisturbed = GenerateAll(cluster.gateway(), EightRequests());
  ASSERT_TRUE(Eventually([&] {
    return std::ranges::all_of(cluster.Status()->pipelines, [](const PipelineStatus& pipeline) {
      return pipeline.stages[0].report.running_sequences == 0;
    });
  }));

  const auto streams = StartAllAndAwaitTokens(cluster.gateway(), EightRequests());
  const std::string victim = cluster.Status()->pipelines[0].stages[1].metrics_address;
  cluster.Kill(cluster.PidOf(victim), SIGKILL);
  uint32_t num_resumed = 0;
  for (size_t i = 0; i < streams.size(); ++i) {
    const Outcome outcome = streams[i]->Finish();
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.tokens, undisturbed[i].tokens) << "stream " << i;
    EXPECT_LE(outcome.usage.resumes(), 1u);
    num_resumed += outcome.usage.resumes();
  }
  EXPECT_EQ(num_resumed, 4u) << "eight streams over two pipelines of equal load";
  EXPECT_EQ(ScrapeMetric(cluster.http(), "sauva_resumes_total"), num_resumed);
}

TEST(CoordinatorLossTest, RunningStreamsDoNotNoticeAndNewOnesWait) {
  auto started = TestCluster::Start({"--stages", "2"});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const std::vector<Outcome> undisturbed = GenerateAll(cluster.gateway(), EightRequests());
  for (const Outcome& outcome : undisturbed) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  }
  const PipelineStatus before = cluster.Pipeline();

  const auto streams = StartAllAndAwaitTokens(cluster.gateway(), EightRequests());
  const pid_t dead = cluster.PidOfRole("coordinator");
  cluster.Kill(dead, SIGKILL);
  StreamClient newcomer(cluster.gateway(), EightRequests()[0]);
  for (size_t i = 0; i < streams.size(); ++i) {
    const Outcome outcome = streams[i]->Finish();
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.tokens, undisturbed[i].tokens) << "stream " << i;
    EXPECT_EQ(outcome.usage.resumes(), 0u);
  }
  ASSERT_TRUE(cluster.AwaitEvent("restarted", "coordinator").has_value());
  EXPECT_NE(cluster.PidOfRole("coordinator"), dead);
  const Outcome late = newcomer.Finish();
  EXPECT_TRUE(late.status.ok()) << late.status.error_message();
  EXPECT_EQ(late.tokens, undisturbed[0].tokens);

  const PipelineStatus after = cluster.Pipeline();
  EXPECT_EQ(after.epoch, before.epoch) << "the pipeline was placed anew instead of adopted";
  ASSERT_EQ(after.stages.size(), before.stages.size());
  for (size_t i = 0; i < after.stages.size(); ++i) {
    EXPECT_EQ(after.stages[i].endpoint, before.stages[i].endpoint);
    EXPECT_GE(after.stages[i].report.steps_done, before.stages[i].report.steps_done);
  }
}

TEST(GatewayLossTest, TheCommandLineGoesOnAtAnotherGateway) {
  auto started = TestCluster::Start({"--stages", "2", "--no-restart"});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const Outcome undisturbed = Generate(cluster.gateway(), EightRequests()[0]);
  const double tokens_before =
      ScrapeMetric(cluster.http(), "sauva_generation_tokens_total").value_or(0);

  const ExtraGateway other(cluster);
  const v1::GenerateRequest request = EightRequests()[0];
  TestProcess client({std::string(SAUVA_BINARY_DIR) + "/sauva", "generate", "--json", "--gateway",
                      cluster.gateway(), "--gateway", other.address(), "--seed",
                      std::to_string(request.sampling().seed()), "--temperature", "1",
                      "--ignore-eos", "--max-tokens", std::to_string(kNumTokens), request.text()},
                     cluster.log_directory() + "/client.log");
  const auto delivered = [&] {
    return ScrapeMetric(cluster.http(), "sauva_generation_tokens_total").value_or(0) -
           tokens_before;
  };
  ASSERT_TRUE(Eventually([&] { return delivered() >= 5; }));
  ASSERT_LT(delivered(), kNumTokens) << "too late";
  cluster.Kill(cluster.PidOfRole("gateway"), SIGKILL);

  const auto result = client.ReadLine(absl::Now() + kPatience);
  EXPECT_EQ(client.Wait(absl::Now() + kPatience), 0);
  ASSERT_TRUE(result.has_value());
  const auto json = nlohmann::json::parse(*result);
  EXPECT_EQ(json.at("token_ids"), undisturbed.tokens);
  EXPECT_EQ(json.at("text"), undisturbed.text);
  EXPECT_EQ(json.at("usage").at("completion_tokens"), kNumTokens);
}

}  // namespace
}  // namespace sauva
