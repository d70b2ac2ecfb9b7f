#include "cli/status_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace sauva {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ClusterStatus TwoStages() {
  ClusterStatus status;
  PipelineStatus pipeline{.epoch = uint64_t{1} << 60,
                          .model = {"prose", "abc"},
                          .ready = true,
                          .numerics_id = "n",
                          .stages = {}};
  for (int i = 0; i < 2; ++i) {
    StageStatus stage;
    stage.endpoint = {i == 0 ? "worker-a" : "worker-b", "127.0.0.1:1", {i * 4, i * 4 + 4}};
    stage.report.phase = StagePhase::kServing;
    stage.report.weight_bytes = 7 << 20;
    stage.report.scratch_bytes = 3 << 20;
    stage.report.steps_done = 12;
    stage.report.tokens_done = 30;
    stage.report.step_seconds = 0.5;
    stage.metrics_address = "127.0.0.1:2";
    pipeline.stages.push_back(stage);
  }
  status.pipelines.push_back(pipeline);
  WorkerStatus spare;
  spare.hello.worker_id = "worker-c";
  status.workers = {spare};
  return status;
}

TEST(StatusViewTest, TheTableNamesWorkerLayersBytesStepsAndSpeed) {
  const std::string table = StatusTable(TwoStages());
  EXPECT_THAT(table, HasSubstr("pipeline of prose"));
  EXPECT_THAT(table, HasSubstr("worker-a"));
  EXPECT_THAT(table, HasSubstr("[4, 8)"));
  EXPECT_THAT(table, HasSubstr("7.0 MiB"));
  EXPECT_THAT(table, HasSubstr("60.0"));
  EXPECT_THAT(table, HasSubstr("of them spare: 1"));
  EXPECT_THAT(table, Not(HasSubstr("cannot place")));
}

TEST(StatusViewTest, TheTableTellsWhyNothingIsPlaced) {
  ClusterStatus status;
  status.placement_error = "needs 9 GB, has 2 GB";
  EXPECT_THAT(StatusTable(status), HasSubstr("cannot place a pipeline: needs 9 GB, has 2 GB"));
}

TEST(StatusViewTest, PairsThatNcclCouldNotConnectAreNamedWithTheReason) {
  ClusterStatus status = TwoStages();
  EXPECT_THAT(StatusTable(status), Not(HasSubstr("NCCL")));
  EXPECT_TRUE(nlohmann::json::parse(StatusJson(status))["avoided_links"].empty());
  status.avoided_links = {{"worker-a", "worker-b", 2, "no route to host", 61'500}};
  EXPECT_THAT(StatusTable(status),
              HasSubstr("NCCL is not tried between worker-a and worker-b for 1m1s, it failed 2 "
                        "times in a row: no route to host"));
  const auto link = nlohmann::json::parse(StatusJson(status))["avoided_links"][0];
  EXPECT_EQ(link["workers"], (std::vector<std::string>{"worker-a", "worker-b"}));
  EXPECT_EQ(link["failures"], 2);
  EXPECT_EQ(link["retry_ms"], 61'500);
}

TEST(StatusViewTest, TheJsonCarriesEveryStage) {
  const auto json = nlohmann::json::parse(StatusJson(TwoStages()));
  const auto& pipeline = json["pipelines"][0];
  EXPECT_EQ(pipeline["epoch"], "1152921504606846976");
  EXPECT_EQ(pipeline["ready"], true);
  ASSERT_EQ(pipeline["stages"].size(), 2u);
  EXPECT_EQ(pipeline["stages"][1]["layers"], (std::vector<int>{4, 8}));
  EXPECT_EQ(pipeline["stages"][1]["worker_id"], "worker-b");
  EXPECT_EQ(pipeline["stages"][1]["steps_done"], 12);
  EXPECT_EQ(pipeline["stages"][1]["scratch_bytes"], 3 << 20);
  EXPECT_EQ(pipeline["stages"][1]["phase"], "serving");
  EXPECT_EQ(json["workers"][0]["worker_id"], "worker-c");
}

TEST(StatusViewTest, TheJsonOfAnEmptyClusterHasTheSameForm) {
  const auto json = nlohmann::json::parse(StatusJson({}));
  EXPECT_EQ(json["pipelines"], nlohmann::json::array());
  EXPECT_EQ(json["workers"], nlohmann::json::array());
}

}  // namespace
}  // namespace sauva
