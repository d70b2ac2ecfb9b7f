#include "coordinator/links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace sauva {
namespace {

using ::testing::HasSubstr;

WorkerHello OnGpu(const std::string& id, const std::string& device,
                  const std::string& version = "2.28.9") {
  return {.worker_id = id, .nccl = {.version = version, .device = device}};
}

WorkerHello OnCpu(const std::string& id) {
  return {.worker_id = id, .nccl = {.error = "it runs on cpu; NCCL moves memory of GPUs"}};
}

// "n" or "g" for each link but the last stage's, which goes nowhere.
absl::StatusOr<std::string> Chosen(LinkPolicy policy, const std::vector<WorkerHello>& workers) {
  std::vector<const WorkerHello*> hellos;
  for (const WorkerHello& worker : workers) hellos.push_back(&worker);
  std::vector<StageEndpoint> stages(workers.size());
  if (const absl::Status status = ChooseLinks(policy, hellos, stages); !status.ok()) return status;
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

TEST(LinksTest, APolicyOfAnotherNameIsRefused) {
  EXPECT_EQ(*ParseLinkPolicy("nccl"), LinkPolicy::kNccl);
  EXPECT_THAT(ParseLinkPolicy("rdma").status().message(), HasSubstr("--link is rdma"));
}

}  // namespace
}  // namespace sauva
