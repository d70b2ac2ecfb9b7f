#include "cli/launch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

// A directory that looks like a model to the launcher, which only looks for config.json.
class LaunchPlanTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(root_ / "tiny");
    std::ofstream(root_ / "tiny" / "config.json") << "{}";
    options_.model = (root_ / "tiny").string() + "/";
  }

  absl::StatusOr<LaunchPlan> Plan() const { return MakeLaunchPlan(options_, machine_); }
  std::string Error() const { return std::string(Plan().status().message()); }

  const TemporaryDirectory directory_;
  const std::filesystem::path root_ = directory_.path();
  UpOptions options_;
  Machine machine_ = {
      .cores = 8, .memory_bytes = 10'000'000'000, .binary_directory = "/bin", .has_cuda = false};
};

std::string ValueOf(const ServiceCommand& service, const std::string& flag) {
  const auto& arguments = service.command.arguments;
  const auto found = std::find(arguments.begin(), arguments.end(), flag);
  return found == arguments.end() || found + 1 == arguments.end() ? "(absent)" : *(found + 1);
}

TEST_F(LaunchPlanTest, SplitsTheModelIntoItsFolderAndItsName) {
  const LaunchPlan plan = *Plan();
  const std::string folder = std::filesystem::canonical(root_).string();
  EXPECT_EQ(ValueOf(plan.coordinator, "--model-dir"), folder);
  EXPECT_EQ(ValueOf(plan.coordinator, "--model"), "tiny");
  EXPECT_EQ(ValueOf(plan.workers.at(0), "--model-dir"), folder);
  EXPECT_EQ(plan.coordinator.command.binary, "/bin/sauva-coordinator");
}

TEST_F(LaunchPlanTest, StartsAsManyWorkersAsStagesReplicasAndSparesNeed) {
  options_.stages = 3;
  options_.replicas = 2;
  options_.spares = 1;
  EXPECT_EQ(Plan()->workers.size(), 7u);
  options_.stages = 0;
  options_.replicas = 1;
  options_.spares = 0;
  EXPECT_EQ(Plan()->workers.size(), 1u);
}

TEST_F(LaunchPlanTest, MixReachesTheCoordinatorAndWorkersMayBeOfAnyBackend) {
  options_.workers = {"cpu", "reference", "reference:2GiB"};
  const auto has_mix = [&] {
    const auto& arguments = Plan()->coordinator.command.arguments;
    return std::ranges::find(arguments, "--mix") != arguments.end();
  };
  EXPECT_FALSE(has_mix());
  options_.mix = true;
  EXPECT_TRUE(has_mix());
  EXPECT_EQ(ValueOf(Plan()->workers.at(0), "--device"), "cpu");
  EXPECT_EQ(ValueOf(Plan()->workers.at(1), "--device"), "reference");
  EXPECT_EQ(ValueOf(Plan()->workers.at(2), "--device"), "reference");
  EXPECT_EQ(ValueOf(Plan()->workers.at(2), "--memory"), std::to_string(uint64_t{2} << 30));
  options_.workers = {"referenced"};
  EXPECT_THAT(Error(), HasSubstr("--worker referenced"));
}

TEST_F(LaunchPlanTest, RefusesFewerWorkersThanTheShapeNeeds) {
  options_.stages = 3;
  options_.num_workers = 2;
  EXPECT_THAT(Error(), HasSubstr("2 workers cannot hold --stages 3"));
}

TEST_F(LaunchPlanTest, TellsEveryWorkerWhetherStepsAreRecorded) {
  options_.num_workers = 2;
  EXPECT_EQ(ValueOf(Plan()->workers[1], "--cuda-graphs"), "on");
  options_.cuda_graphs = "off";
  EXPECT_EQ(ValueOf(Plan()->workers[0], "--cuda-graphs"), "off");
  EXPECT_EQ(ValueOf(Plan()->workers[1], "--cuda-graphs"), "off");
}

TEST_F(LaunchPlanTest, TellsEveryWorkerHowLongAStepMayTake) {
  options_.num_workers = 2;
  EXPECT_EQ(ValueOf(Plan()->workers[1], "--step-timeout"), "10s");
  options_.step_timeout = "2m";
  EXPECT_EQ(ValueOf(Plan()->workers[0], "--step-timeout"), "2m");
  EXPECT_EQ(ValueOf(Plan()->workers[1], "--step-timeout"), "2m");
  for (const char* nonsense : {"", "0s", "-1s", "ten", "10"}) {
    options_.step_timeout = nonsense;
    EXPECT_THAT(Error(), HasSubstr(std::string("--step-timeout is '") + nonsense + "'"));
  }
}

TEST_F(LaunchPlanTest, SharesCoresAndMemoryBetweenWorkers) {
  options_.num_workers = 3;
  const LaunchPlan plan = *Plan();
  EXPECT_EQ(plan.threads, 2);
  EXPECT_EQ(ValueOf(plan.workers[2], "--memory"), "2666666666");
  options_.num_workers = 16;
  EXPECT_EQ(Plan()->threads, 1);
}

TEST_F(LaunchPlanTest, TakesTheMemoryThatAWorkerNames) {
  options_.workers = {"cpu:1GiB", "cpu"};
  const LaunchPlan plan = *Plan();
  EXPECT_EQ(ValueOf(plan.workers[0], "--memory"), "1073741824");
  EXPECT_EQ(ValueOf(plan.workers[1], "--memory"), "4000000000");
}

TEST_F(LaunchPlanTest, GivesWorkersTheirGpus) {
  machine_.has_cuda = true;
  options_.workers = {"cuda:0:4GiB", "cuda:0:2GiB", "cuda:1", "cpu:1GiB"};
  const LaunchPlan plan = *Plan();
  EXPECT_EQ(ValueOf(plan.workers[0], "--device"), "cuda:0");
  EXPECT_EQ(ValueOf(plan.workers[0], "--memory"), "4294967296");
  EXPECT_EQ(ValueOf(plan.workers[1], "--memory"), "2147483648");
  EXPECT_EQ(ValueOf(plan.workers[2], "--device"), "cuda:1");
  EXPECT_EQ(ValueOf(plan.workers[2], "--memory"), "(absent)");  // it looks what is free
  EXPECT_EQ(ValueOf(plan.workers[3], "--device"), "cpu");
}

TEST_F(LaunchPlanTest, TellsEveryWorkerToBeDeterministicWhenAsked) {
  machine_.has_cuda = true;
  options_.workers = {"cuda:0:4GiB", "cuda:1"};
  const auto told = [](const ServiceCommand& worker) {
    return std::ranges::count(worker.command.arguments, "--deterministic") == 1;
  };
  EXPECT_TRUE(std::ranges::none_of(Plan()->workers, told));
  options_.deterministic = true;
  EXPECT_TRUE(std::ranges::all_of(Plan()->workers, told));
}

TEST_F(LaunchPlanTest, RefusesDevicesItDoesNotHave) {
  options_.workers = {"cuda:0"};
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Error(), HasSubstr("no CUDA"));
  machine_.has_cuda = true;
  options_.workers = {"cuda:one"};
  EXPECT_THAT(Error(), HasSubstr("cuda:N:MEMORY"));
  options_.workers = {"cuda:0", "cuda:0:4GiB"};
  EXPECT_THAT(Error(), HasSubstr("2 workers share this GPU"));
  options_.workers.clear();
  options_.device = "cuda:0";
  EXPECT_THAT(Error(), HasSubstr("--worker cuda:N"));
  options_.device = "cpu";
  options_.workers = {"tpu"};
  EXPECT_THAT(Error(), HasSubstr("--worker tpu"));
  options_.workers = {"cpu:lots"};
  EXPECT_THAT(Error(), HasSubstr("'lots'"));
}

TEST_F(LaunchPlanTest, RefusesAModelThatIsNotThereAndCountsBeyondTheLimits) {
  options_.stages = 65;
  EXPECT_THAT(Error(), HasSubstr("--stages must be 0 to 64, not 65"));
  options_.model = root_.string();
  EXPECT_THAT(Error(), HasSubstr("no config.json"));
  options_.model = "/nowhere/at/all";
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Error(), HasSubstr("/nowhere/at/all"));
}

TEST_F(LaunchPlanTest, GivesCertificatesToEveryService) {
  options_.tls = {.certificate = "c.pem", .key = "k.pem", .ca = "a.pem", .insecure = false};
  const LaunchPlan plan = *Plan();
  for (const ServiceCommand* service : {&plan.coordinator, &plan.workers[0], &plan.gateway}) {
    EXPECT_EQ(ValueOf(*service, "--tls-cert"), "c.pem");
    EXPECT_EQ(ValueOf(*service, "--tls-key"), "k.pem");
    EXPECT_EQ(ValueOf(*service, "--tls-ca"), "a.pem");
  }
}

TEST_F(LaunchPlanTest, TellsTheCoordinatorTheShapeOfTheCluster) {
  options_.num_workers = 5;
  options_.stages = 2;
  options_.replicas = 2;
  options_.spares = 1;
  options_.kv_memory = "64MiB";
  options_.kv_type = "f16";
  options_.weights = "int8";
  options_.max_context = 128;
  const LaunchPlan plan = *Plan();
  EXPECT_EQ(ValueOf(plan.coordinator, "--expect-workers"), "5");
  EXPECT_EQ(ValueOf(plan.coordinator, "--stages"), "2");
  EXPECT_EQ(ValueOf(plan.coordinator, "--replicas"), "2");
  EXPECT_EQ(ValueOf(plan.coordinator, "--spares"), "1");
  EXPECT_EQ(ValueOf(plan.coordinator, "--kv-memory"), "67108864");
  EXPECT_EQ(ValueOf(plan.coordinator, "--kv-type"), "f16");
  EXPECT_EQ(ValueOf(plan.coordinator, "--weights"), "int8");
  EXPECT_EQ(ValueOf(plan.coordinator, "--max-context"), "128");
}

TEST_F(LaunchPlanTest, OnlyServicesThatOthersKnowByAddressKeepIt) {
  const LaunchPlan plan = *Plan();
  EXPECT_EQ(plan.coordinator.restart_address, RestartAddress::kSame);
  EXPECT_EQ(plan.gateway.restart_address, RestartAddress::kSame);
  EXPECT_EQ(plan.workers[0].restart_address, RestartAddress::kAny);
}

}  // namespace
}  // namespace sauva
