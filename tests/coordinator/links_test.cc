#include "coordinator/links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

WorkerHello OnGpu(const std::string& id, const std::string& device,
                  const std::string& version = "2.28.9") {
  return {.worker_id = id, .nccl = {.version = version, .device = device}};
}

WorkerHello OnCpu(const std::string& id) {
  return {.worker_id = id, .nccl = {.error = "it runs on cpu; NCCL moves memory of GPUs"}};
}

// "n" or "g" for each link but the last stage's, which goes nowhere.
absl::StatusOr<std::string> Chosen(
    LinkPolicy policy, const std::vector<WorkerHello>& workers,
    const LinkFailures& failures = LinkFailures(LinkFailureLimits{})) {
  std::vector<const WorkerHello*> hellos;
  for (const WorkerHello& worker : workers) hellos.push_back(&worker);
  std::vector<StageEndpoint> stages(workers.size());
  if (const absl::Status status = ChooseLinks(policy, hellos, failures, kNow, stages);
      !status.ok()) {
    return status;
  }
  EXPECT_EQ(stages.back().link, LinkKind::kGrpc);
  std::string links;
  for (size_t i = 0; i + 1 < stages.size(); ++i) {
    links += stages[i].link == LinkKind::kNccl ? "n" : "g";
  }
  return links;
}

TEST(LinksTest, AutoTakesNcclBetweenTwoGpusAndGrpcElsewhere) {
  const std::vector<WorkerHello> workers = {OnGpu("a", "GPU-1"), OnGpu("b", "GPU-2"),
                                            OnCpu("c"),          OnGpu("d", "GPU-3"),
                                            OnGpu("e", "GPU-3"), OnGpu("f", "GPU-4", "2.27.3")};
  EXPECT_EQ(*Chosen(LinkPolicy::kAuto, workers), "ngggg");
  EXPECT_EQ(*Chosen(LinkPolicy::kGrpc, workers), "ggggg");
  EXPECT_EQ(*Chosen(LinkPolicy::kAuto, {OnGpu("a", "GPU-1")}), "");
}

TEST(LinksTest, NcclRefusesNamingBothWorkersAndWhatIsInTheWay) {
  const auto refusal = [](const WorkerHello& from, const WorkerHello& to) {
    const auto chosen = Chosen(LinkPolicy::kNccl, {from, to});
    EXPECT_EQ(chosen.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(chosen.status().message(), HasSubstr("from worker a to b"));
    return std::string(chosen.status().message());
  };
  EXPECT_THAT(refusal(OnGpu("a", "GPU-1"), OnCpu("b")), HasSubstr("b has no NCCL: it runs on cpu"));
  EXPECT_THAT(refusal(OnGpu("a", "GPU-1"), OnGpu("b", "GPU-2", "2.27.3")),
              HasSubstr("NCCL 2.28.9, the other 2.27.3"));
  EXPECT_THAT(refusal(OnGpu("a", "GPU-1"), OnGpu("b", "GPU-1")), HasSubstr("both use GPU-1"));
  EXPECT_EQ(*Chosen(LinkPolicy::kNccl, {OnGpu("a", "GPU-1")}), "");
}

TEST(LinksTest, APairThatNcclCouldNotConnectGoesByGrpcOrIsRefused) {
  LinkFailures failures({.tolerated = 2});
  failures.Add("a", "b", "no route to host", kNow);
  const std::vector<WorkerHello> workers = {OnGpu("a", "GPU-1"), OnGpu("b", "GPU-2"),
                                            OnGpu("c", "GPU-3")};
  EXPECT_EQ(*Chosen(LinkPolicy::kAuto, workers, failures), "nn");
  failures.Add("b", "a", "no route to host", kNow);  // the other way round is the same pair
  EXPECT_EQ(*Chosen(LinkPolicy::kAuto, workers, failures), "gn");
  EXPECT_THAT(Chosen(LinkPolicy::kNccl, workers, failures).status().message(),
              HasSubstr("from worker a to b: NCCL could not connect them 2 times in a row: no "
                        "route to host"));
}

TEST(LinkFailuresTest, APairIsTriedAgainAfterAWhileAndAvoidedAtOnceWhenThatFails) {
  LinkFailures failures({.tolerated = 2, .retry_after = absl::Minutes(10)});
  EXPECT_FALSE(failures.Add("a", "b", "one", kNow));
  EXPECT_TRUE(failures.Add("a", "b", "two", kNow + absl::Minutes(1)));
  ASSERT_EQ(failures.List(kNow + absl::Minutes(2)).size(), 1u);
  EXPECT_EQ(failures.List(kNow + absl::Minutes(2))[0],
            (AvoidedLink{"a", "b", 2, "two", 9 * 60 * 1000}));
  const absl::Time again = kNow + absl::Minutes(11);
  EXPECT_FALSE(failures.Avoided("a", "b", again));
  EXPECT_TRUE(failures.List(again).empty());
  EXPECT_TRUE(failures.Add("b", "a", "three", again));
  EXPECT_TRUE(failures.Avoided("a", "b", again));
}

TEST(LinkFailuresTest, ASuccessAndTheEndOfAWorkerAreForgiving) {
  LinkFailures failures({.tolerated = 1});
  for (const char* peer : {"b", "c", "d"}) failures.Add("a", peer, "failed", kNow);
  failures.Worked("b", "a");
  EXPECT_FALSE(failures.Avoided("a", "b", kNow));
  EXPECT_TRUE(failures.Avoided("a", "c", kNow));
  failures.Forget("d");
  EXPECT_FALSE(failures.Avoided("a", "d", kNow));
  EXPECT_TRUE(failures.Avoided("a", "c", kNow));
  failures.Forget("a");
  EXPECT_EQ(failures.size(), 0u);
}

TEST(LinkFailuresTest, NoMorePairsThanTheLimitAreRemembered) {
  LinkFailures failures({.tolerated = 1, .max_pairs = 3});
  for (int i = 0; i < 10; ++i) {
    failures.Add("a", absl::StrCat("w", i), "failed", kNow + absl::Seconds(i));
  }
  EXPECT_EQ(failures.size(), 3u);
  EXPECT_FALSE(failures.Avoided("a", "w6", kNow + absl::Seconds(10)));
  EXPECT_TRUE(failures.Avoided("a", "w7", kNow + absl::Seconds(10)));
}

TEST(LinksTest, APolicyOfAnotherNameIsRefused) {
  EXPECT_EQ(*ParseLinkPolicy("nccl"), LinkPolicy::kNccl);
  EXPECT_THAT(ParseLinkPolicy("rdma").status().message(), HasSubstr("--link is rdma"));
}

}  // namespace
}  // namespace sauva
