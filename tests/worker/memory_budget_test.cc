#include "worker/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sauva {
namespace {

using testing::HasSubstr;

constexpr const char* kMeminfo = "MemTotal: 1000 kB\nMemFree: 5 kB\nMemAvailable:     300 kB\n";

TEST(MemoryBudgetTest, AvailableIsWhatTheKernelSaysOrTheGroupLeaves) {
  EXPECT_EQ(*AvailableMemoryBytes(kMeminfo, "", ""), 300u * 1024);
  EXPECT_EQ(*AvailableMemoryBytes(kMeminfo, "max\n", "77\n"), 300u * 1024);
  EXPECT_EQ(*AvailableMemoryBytes(kMeminfo, "5000\n", "1000\n"), 4000u);
  EXPECT_EQ(*AvailableMemoryBytes(kMeminfo, "5000\n", "6000\n"), 0u);
  EXPECT_TRUE(absl::IsUnavailable(AvailableMemoryBytes("", "", "").status()));
  EXPECT_GT(*AvailableMemoryBytes(), 0u);
}

TEST(MemoryBudgetTest, BlocksFillWhatWeightsAndScratchLeave) {
  KvDemand demand{.budget_bytes = 1000,
                  .weight_bytes = 500,
                  .scratch_bytes = 100,
                  .kv_block_bytes = 100,
                  .useful_blocks = 1000};
  EXPECT_EQ(*MaxKvBlocks(demand), 4u);
  demand.budget_bytes = 1099;
  EXPECT_EQ(*MaxKvBlocks(demand), 4u);
  demand.kv_memory_bytes = 250;
  EXPECT_EQ(*MaxKvBlocks(demand), 2u);
  demand.useful_blocks = 1;
  EXPECT_EQ(*MaxKvBlocks(demand), 1u);
}

TEST(MemoryBudgetTest, NoRoomForOneBlockNamesTheBytes) {
  for (const uint64_t budget : {0u, 600u, 699u}) {
    const auto blocks = MaxKvBlocks({.budget_bytes = budget,
                                     .weight_bytes = 500,
                                     .scratch_bytes = 100,
                                     .kv_block_bytes = 100,
                                     .useful_blocks = 10});
    EXPECT_TRUE(absl::IsResourceExhausted(blocks.status()));
    EXPECT_THAT(blocks.status().message(), HasSubstr("weights take 500"));
    EXPECT_THAT(blocks.status().message(), HasSubstr(std::to_string(budget)));
  }
}

TEST(MemoryBudgetTest, EachNcclLinkTakesALargestStepAndACommunicator) {
  StageAssignment assignment{.stages = std::vector<StageEndpoint>(3), .max_step_tokens = 256};
  EXPECT_EQ(LinkBytes(assignment, 4096), 0u);
  const uint64_t one = uint64_t{256} * 4096 * 4 + (16 << 20);
  assignment.stages[0].link = LinkKind::kNccl;
  EXPECT_EQ(LinkBytes(assignment, 4096), one);
  assignment.stages[1].link = LinkKind::kNccl;
  assignment.stage_index = 1;
  EXPECT_EQ(LinkBytes(assignment, 4096), 2 * one);
  assignment.stage_index = 2;
  EXPECT_EQ(LinkBytes(assignment, 4096), one);
}

TEST(MemoryBudgetTest, TheContextOfADriverCountsInAGpusBudget) {
  EXPECT_EQ(*DeviceMemoryBudget("cuda:0", "4GiB"), (uint64_t{4} << 30) - (uint64_t{512} << 20));
  const auto small = DeviceMemoryBudget("cuda:0", "512MiB");
  EXPECT_TRUE(absl::IsInvalidArgument(small.status()));
  EXPECT_THAT(small.status().message(), HasSubstr("536870912"));
  EXPECT_TRUE(absl::IsInvalidArgument(DeviceMemoryBudget("cuda:x", "4GiB").status()));
}

}  // namespace
}  // namespace sauva
