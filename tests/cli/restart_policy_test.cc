#include "cli/restart_policy.h"

#include <gtest/gtest.h>

namespace sauva {
namespace {

TEST(RestartPolicyTest, WaitsTwiceAsLongEachTimeUpToALimit) {
  RestartPolicy policy;
  const absl::Duration short_life = absl::Seconds(1);
  EXPECT_EQ(policy.NextDelay(short_life), absl::Milliseconds(500));
  EXPECT_EQ(policy.NextDelay(short_life), absl::Seconds(1));
  EXPECT_EQ(policy.NextDelay(short_life), absl::Seconds(2));
  for (int i = 0; i < 10; ++i) policy.NextDelay(short_life);
  EXPECT_EQ(policy.NextDelay(short_life), absl::Seconds(30));
}

TEST(RestartPolicyTest, ForgetsOldDeathsOfAChildThatLivedLong) {
  RestartPolicy policy;
  for (int i = 0; i < 5; ++i) policy.NextDelay(absl::Seconds(1));
  EXPECT_EQ(policy.NextDelay(absl::Minutes(1)), absl::Milliseconds(500));
}

}  // namespace
}  // namespace sauva
