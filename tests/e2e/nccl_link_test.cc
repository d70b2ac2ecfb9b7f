#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "tests/e2e/stream_client.h"
#include "tests/temporary_directory.h"

// Real processes whose stages are joined by NCCL's calls. The library behind the calls is a
// stand-in that moves memory of the host (tests/nccl), the rest is what runs on GPUs.
namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kNumTokens = 160;
constexpr size_t kNumStages = 3;

std::vector<v1::GenerateRequest> Requests() {
  return MixedRequests({.greedy = 3, .sampled = 3}, kNumTokens);
}

class NcclLinkTest : public testing::Test {
 protected:
  NcclLinkTest() { setenv("SAUVA_FAKE_NCCL", folder_.path().c_str(), 1); }

  static std::vector<std::string> Flags(const std::string& link) {
    return {"--stages",
            absl::StrCat(kNumStages),
            "--threads",
            "1",
            "--spares",
            "1",
            "--link",
            link,
            "--no-restart",
            "--nccl-library",
            SAUVA_FAKE_NCCL_LIBRARY};
  }
  static std::unique_ptr<TestCluster> Start(std::vector<std::string> flags) {
    auto cluster = TestCluster::Start(flags);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    return cluster.ok() ? *std::move(cluster) : nullptr;
  }
  // The tokens over gRPC, made once.
  static const std::vector<Outcome>& OverGrpc() {
    static const auto outcomes = [] {
      const auto cluster = Start({"--stages", "2", "--threads", "1", "--link", "grpc"});
      auto made = cluster ? GenerateAll(cluster->gateway(), Requests()) : std::vector<Outcome>();
      for (const Outcome& outcome : made) {
        EXPECT_TRUE(outcome.status.ok()) << "over gRPC: " << outcome.status.error_message();
      }
      return made;
    }();
    return outcomes;
  }
  static void ExpectLinks(const PipelineStatus& pipeline, LinkKind kind) {
    ASSERT_EQ(pipeline.stages.size(), kNumStages);
    for (size_t i = 0; i + 1 < kNumStages; ++i) {
      EXPECT_EQ(pipeline.stages[i].endpoint.link, kind) << "after stage " << i;
    }
  }
  // Ids that were made and whose two ranks have not met.
  int OutstandingIds() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      count += entry.path().filename().string().starts_with("id-") ? 1 : 0;
    }
    return count;
  }
  // Lays a file that makes the stand-in fail, and waits until a process has taken it.
  bool AwaitTaken(const std::string& file) const {
    const std::string path = folder_.path() + "/" + file;
    std::ofstream(path).put('\n');
    return Eventually([&] { return !std::filesystem::exists(path); });
  }
  // All end with the tokens over gRPC; the longest pause of one.
  static absl::Duration ExpectUndisturbed(const StreamClients& streams) {
    absl::Duration longest_gap;
    for (size_t i = 0; i < streams.size(); ++i) {
      const Outcome outcome = streams[i]->Finish();
      EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
      EXPECT_EQ(outcome.tokens, OverGrpc()[i].tokens) << "stream " << i;
      EXPECT_EQ(outcome.usage.resumes(), 1u);
      longest_gap = std::max(longest_gap, outcome.longest_gap);
    }
    return longest_gap;
  }

  const TemporaryDirectory folder_;
};

TEST_F(NcclLinkTest, GivesTheTokensOfTheGrpcLink) {
  const auto cluster = Start(Flags("nccl"));
  ASSERT_NE(cluster, nullptr);
  const PipelineStatus pipeline = cluster->Pipeline();
  ExpectLinks(pipeline, LinkKind::kNccl);
  const std::vector<Outcome> outcomes = GenerateAll(cluster->gateway(), Requests());
  ASSERT_EQ(outcomes.size(), OverGrpc().size());
  for (size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT_TRUE(outcomes[i].status.ok()) << outcomes[i].status.error_message();
    EXPECT_EQ(outcomes[i].tokens, OverGrpc()[i].tokens) << "request " << i;
    EXPECT_EQ(outcomes[i].usage.resumes(), 0u);
  }
  // What one end sent the other received, and the links' memory is part of the plan.
  for (size_t i = 0; i + 1 < kNumStages; ++i) {
    const auto sent = ScrapeMetric(pipeline.stages[i].metrics_address, "sauva_link_bytes_total",
                                   "direction=\"sent\"");
    EXPECT_GT(sent.value_or(0), 0);
    EXPECT_EQ(sent, ScrapeMetric(pipeline.stages[i + 1].metrics_address, "sauva_link_bytes_total",
                                 "direction=\"received\""));
    EXPECT_GT(
        ScrapeMetric(pipeline.stages[i].metrics_address, "sauva_memory_bytes", "share=\"links\"")
            .value_or(0),
        0);
  }
  EXPECT_THAT(cluster->Logs(), HasSubstr("NCCL link joined"));
  EXPECT_EQ(OutstandingIds(), 0);
}

// The transfer that a worker is in the midst of cannot end: its peer is gone.
class NcclLossTest : public NcclLinkTest, public testing::WithParamInterface<size_t> {};

TEST_P(NcclLossTest, AKillInMidTransferIsAbortedAndTheStreamsEndWithTheRightTokens) {
  ASSERT_EQ(OverGrpc().size(), Requests().size());
  const auto cluster = Start(Flags("nccl"));
  ASSERT_NE(cluster, nullptr);
  const PipelineStatus before = cluster->Pipeline();
  const auto streams = StartAllAndAwaitTokens(cluster->gateway(), Requests());
  ASSERT_TRUE(AwaitTaken("stall"));
  cluster->Kill(cluster->PidOf(before.stages[GetParam()].metrics_address), SIGKILL);
  const absl::Duration longest_gap = ExpectUndisturbed(streams);
  EXPECT_LT(longest_gap, absl::Seconds(10)) << "the step deadline";
  const PipelineStatus after = cluster->Pipeline();
  EXPECT_GT(after.epoch, before.epoch);
  ExpectLinks(after, LinkKind::kNccl);
  std::cout << "longest pause of a stream: " << longest_gap << "\n";
}

INSTANTIATE_TEST_SUITE_P(Stages, NcclLossTest, testing::Values(0u, 1u, 2u));

TEST_F(NcclLinkTest, ATransferThatStopsIsAbortedAtTheStepDeadline) {
  ASSERT_EQ(OverGrpc().size(), Requests().size());
  std::vector<std::string> flags = Flags("nccl");
  flags.insert(flags.end(), {"--step-timeout", "3s"});
  const auto cluster = Start(flags);
  ASSERT_NE(cluster, nullptr);
  const PipelineStatus before = cluster->Pipeline();
  const auto streams = StartAllAndAwaitTokens(cluster->gateway(), Requests());
  ASSERT_TRUE(AwaitTaken("stall"));
  const absl::Duration longest_gap = ExpectUndisturbed(streams);
  EXPECT_GE(longest_gap, absl::Milliseconds(1400)) << "nothing stalled";
  const PipelineStatus after = cluster->Pipeline();
  EXPECT_GT(after.epoch, before.epoch);
  ExpectLinks(after, LinkKind::kNccl);
  EXPECT_THAT(cluster->Logs(), HasSubstr("did not pass within 1.5s"));
  std::cout << "longest pause of a stream: " << longest_gap << "\n";
}

TEST_F(NcclLinkTest, VersionsThatDifferAreRefusedNamingBoth) {
  std::ofstream(folder_.path() + "/other-version").put('\n');
  const auto cluster = TestCluster::Start({"--stages", "2", "--workers", "2", "--link", "nccl",
                                           "--nccl-library", SAUVA_FAKE_NCCL_LIBRARY});
  ASSERT_FALSE(cluster.ok());
  EXPECT_THAT(cluster.status().message(), HasSubstr("2.28.9"));
  EXPECT_THAT(cluster.status().message(), HasSubstr("2.27.3"));
}

TEST_F(NcclLinkTest, ALibraryThatIsNotThereIsNamed) {
  const auto cluster = TestCluster::Start({"--stages", "2", "--workers", "2", "--link", "nccl",
                                           "--nccl-library", "/nowhere/libnccl.so.2"});
  ASSERT_FALSE(cluster.ok());
  EXPECT_THAT(cluster.status().message(), HasSubstr("/nowhere/libnccl.so.2"));
}

TEST_F(NcclLinkTest, AutoFallsBackToGrpcWhereWorkersHaveNoGpu) {
  const auto cluster =
      Start({"--stages", absl::StrCat(kNumStages), "--threads", "1", "--link", "auto"});
  ASSERT_NE(cluster, nullptr);
  ExpectLinks(cluster->Pipeline(), LinkKind::kGrpc);
}

// Both workers have NCCL, but something is in the way between them.
TEST_F(NcclLinkTest, AutoGoesByGrpcAfterTwoEpochsThatNcclCouldNotConnect) {
  std::ofstream(folder_.path() + "/no-connect").put('\n');
  const auto cluster = Start({"--stages", "2", "--workers", "2", "--threads", "1", "--link", "auto",
                              "--no-restart", "--nccl-library", SAUVA_FAKE_NCCL_LIBRARY});
  ASSERT_NE(cluster, nullptr);
  const PipelineStatus pipeline = cluster->Pipeline();
  EXPECT_EQ(pipeline.stages[0].endpoint.link, LinkKind::kGrpc);
  absl::StatusOr<ClusterStatus> status;
  ASSERT_TRUE(Eventually([&] { return (status = cluster->Status()).ok(); })) << status.status();
  ASSERT_EQ(status->avoided_links.size(), 1u);
  EXPECT_THAT(status->avoided_links[0].reason, HasSubstr("no route to host"));
  EXPECT_GE(status->avoided_links[0].failures, 2);
  EXPECT_THAT(cluster->Logs(), HasSubstr("their links go by gRPC"));
  const std::string coordinator = cluster->MetricsOfRole("coordinator").at(0);
  EXPECT_EQ(ScrapeMetric(coordinator, "sauva_nccl_fallbacks_total"), 1);
  EXPECT_EQ(ScrapeMetric(coordinator, "sauva_nccl_pairs_avoided"), 1);
  // An id for each epoch that could not join, no more.
  EXPECT_LE(OutstandingIds(), status->avoided_links[0].failures);
  const std::vector<Outcome> outcomes = GenerateAll(cluster->gateway(), Requests());
  for (size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT_EQ(outcomes[i].tokens, OverGrpc()[i].tokens) << "request " << i;
  }
}

TEST_F(NcclLinkTest, WhereNcclIsAskedForWhatIsInItsWayIsTheRefusal) {
  std::ofstream(folder_.path() + "/no-connect").put('\n');
  const auto cluster = TestCluster::Start({"--stages", "2", "--workers", "2", "--link", "nccl",
                                           "--nccl-library", SAUVA_FAKE_NCCL_LIBRARY});
  ASSERT_FALSE(cluster.ok());
  EXPECT_THAT(cluster.status().message(), HasSubstr("--link nccl"));
  EXPECT_THAT(cluster.status().message(), HasSubstr("2 times in a row"));
  EXPECT_THAT(cluster.status().message(), HasSubstr("no route to host"));
}

}  // namespace
}  // namespace sauva
