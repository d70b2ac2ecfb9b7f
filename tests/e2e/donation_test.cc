#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/e2e/stream_client.h"
#include "tests/temporary_directory.h"

// A new replica receives its weights from a running one by NCCL's calls, over the stand-in of
// the library (tests/nccl).
namespace sauva {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kNumTokens = 48;

class DonationTest : public testing::Test {
 protected:
  DonationTest() { setenv("SAUVA_FAKE_NCCL", folder_.path().c_str(), 1); }

  void StartTwoReplicas() {
    auto started =
        TestCluster::Start({"--replicas", "2", "--stages", "1", "--threads", "1", "--step-timeout",
                            "2s", "--nccl-library", SAUVA_FAKE_NCCL_LIBRARY});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    expected_ = Generate(cluster_->gateway(), GreedyRequest(Prompts()[0], kNumTokens)).tokens;
    ASSERT_EQ(expected_.size(), kNumTokens);
  }
  // Its worker runs again afterwards and has no weights yet.
  void LoseOneReplica() {
    const auto status = cluster_->Status();
    ASSERT_TRUE(status.ok());
    ASSERT_EQ(status->pipelines.size(), 2u);
    survivor_ = cluster_->PidOf(status->pipelines[0].stages[0].metrics_address);
    lost_epoch_ = status->pipelines[1].epoch;
    cluster_->Kill(cluster_->PidOf(status->pipelines[1].stages[0].metrics_address), SIGKILL);
    ASSERT_TRUE(cluster_->AwaitEvent("restarted", "worker").has_value());
  }
  // Two pipelines are ready, and none of them is the lost one, which counts as ready until the
  // coordinator has noticed.
  bool AwaitNewReplica() const {
    return Eventually([this] {
      const auto status = cluster_->Status();
      return status.ok() && status->pipelines.size() == 2 &&
             std::ranges::all_of(status->pipelines, [this](const PipelineStatus& pipeline) {
               return pipeline.ready && pipeline.epoch != lost_epoch_;
             });
    });
  }
  // The new replica alone answers.
  void ExpectTokensOfTheNewReplica() {
    ASSERT_TRUE(AwaitNewReplica());
    cluster_->Kill(survivor_, SIGSTOP);
    const Outcome outcome = Generate(cluster_->gateway(), GreedyRequest(Prompts()[0], kNumTokens));
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.tokens, expected_);
    cluster_->Kill(survivor_, SIGCONT);
  }
  bool AwaitLog(const std::string& text) const {
    return Eventually([&] { return cluster_->Logs().find(text) != std::string::npos; });
  }
  void StallTheNextTransfer() const { std::ofstream(folder_.path() + "/stall").put('\n'); }

  const TemporaryDirectory folder_;
  std::unique_ptr<TestCluster> cluster_;
  std::vector<int32_t> expected_;
  pid_t survivor_ = -1;
  uint64_t lost_epoch_ = 0;
};

TEST_F(DonationTest, ANewReplicaReceivesItsWeightsFromARunningOne) {
  StartTwoReplicas();
  ASSERT_FALSE(HasFatalFailure());
  LoseOneReplica();
  ASSERT_FALSE(HasFatalFailure());
  ExpectTokensOfTheNewReplica();
  EXPECT_TRUE(AwaitLog("weights received from another worker"));
  EXPECT_TRUE(AwaitLog("weights sent to another worker"));
  EXPECT_THAT(cluster_->Logs(), Not(HasSubstr("read from disk")));
}

TEST_F(DonationTest, ATransferThatStopsIsGivenUpAndTheRestIsReadFromDisk) {
  StartTwoReplicas();
  ASSERT_FALSE(HasFatalFailure());
  StallTheNextTransfer();
  LoseOneReplica();
  ASSERT_FALSE(HasFatalFailure());
  ExpectTokensOfTheNewReplica();
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/stall")) << "nothing was transferred";
  EXPECT_TRUE(AwaitLog("the worker that sends weights is lost: the rest is read from disk"));
}

TEST_F(DonationTest, ADonorThatDiesInMidTransferLeavesTheRestToTheDisk) {
  StartTwoReplicas();
  ASSERT_FALSE(HasFatalFailure());
  StallTheNextTransfer();
  LoseOneReplica();
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_TRUE(Eventually([&] { return !std::filesystem::exists(folder_.path() + "/stall"); }));
  cluster_->Kill(survivor_, SIGKILL);
  EXPECT_TRUE(AwaitLog("the worker that sends weights is lost: the rest is read from disk"));
  EXPECT_TRUE(cluster_->AwaitReadyPipelines(2));
  const Outcome outcome = Generate(cluster_->gateway(), GreedyRequest(Prompts()[0], kNumTokens));
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.tokens, expected_);
}

}  // namespace
}  // namespace sauva
