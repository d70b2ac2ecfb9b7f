#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/e2e/stream_client.h"

// Pipelines whose stages are computed by unlike backends: here the fast one of CPUs and the
// plain one, which give the same bits, so that the tokens tell whether all else is right.
namespace sauva {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

std::vector<v1::GenerateRequest> Requests() {
  return MixedRequests({.greedy = 2, .sampled = 2}, 24);
}

TEST(MixTest, APipelineOfTwoBackendsGivesTheTokensOfOneUnderANumericsIdOfItsOwn) {
  const auto plain = TestCluster::Start({"--workers", "2", "--stages", "2", "--threads", "1"});
  ASSERT_TRUE(plain.ok()) << plain.status();
  const std::string plain_id = (*plain)->Pipeline().numerics_id;
  const std::vector<Outcome> expected = GenerateAll((*plain)->gateway(), Requests());

  const auto mixed = TestCluster::Start(
      {"--worker", "cpu", "--worker", "reference", "--stages", "2", "--threads", "1", "--mix"});
  ASSERT_TRUE(mixed.ok()) << mixed.status();
  const PipelineStatus pipeline = (*mixed)->Pipeline();
  EXPECT_NE(pipeline.numerics_id, plain_id);
  const auto status = (*mixed)->Status();
  ASSERT_TRUE(status.ok());
  std::vector<std::string> classes;
  for (const WorkerStatus& worker : status->workers) {
    classes.push_back(worker.hello.backend_class);
    EXPECT_EQ(worker.epoch, pipeline.epoch) << worker.hello.worker_id << " serves no stage";
  }
  EXPECT_THAT(classes, UnorderedElementsAre("cpu", "reference"));
  const std::vector<Outcome> outcomes = GenerateAll((*mixed)->gateway(), Requests());
  for (size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT_TRUE(outcomes[i].status.ok()) << outcomes[i].status.error_message();
    EXPECT_EQ(outcomes[i].tokens, expected[i].tokens) << "request " << i;
    EXPECT_EQ(outcomes[i].numerics_id, pipeline.numerics_id);
  }
  for (const StageStatus& stage : (*mixed)->Pipeline().stages) {
    EXPECT_GT(stage.report.scratch_bytes, 0u);
    EXPECT_GT(ScrapeMetric(stage.metrics_address, "sauva_stage_steps_total").value_or(0), 20);
  }
}

TEST(MixTest, WithoutTheFlagUnlikeBackendsMakeNoPipeline) {
  const auto cluster =
      TestCluster::Start({"--worker", "cpu", "--worker", "reference", "--stages", "2"});
  ASSERT_FALSE(cluster.ok());
  EXPECT_THAT(cluster.status().message(), HasSubstr("1 free cpu workers"));
  EXPECT_THAT(cluster.status().message(), HasSubstr("1 free reference workers"));
}

}  // namespace
}  // namespace sauva
