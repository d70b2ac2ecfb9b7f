#include <gtest/gtest.h>

#include "cli/generate_command.h"

namespace sauva {
namespace {

const absl::Status kBroken = absl::UnavailableError("connection reset");

TEST(GatewayChoiceTest, GoesToTheNextGatewayAtOnce) {
  GatewayChoice choice(2);
  EXPECT_EQ(choice.index(), 0u);
  EXPECT_EQ(choice.AfterFailure(kBroken, 3), absl::ZeroDuration());
  EXPECT_EQ(choice.index(), 1u);
}

TEST(GatewayChoiceTest, WaitsBeforeItAsksTheSameGatewayAgain) {
  GatewayChoice choice(1);
  EXPECT_EQ(choice.AfterFailure(kBroken, 3), absl::Milliseconds(500));
  EXPECT_EQ(choice.AfterFailure(kBroken, 3), absl::Seconds(1));
}

TEST(GatewayChoiceTest, DoesNotAskALoneGatewayThatNeverAnsweredTwice) {
  GatewayChoice choice(1);
  EXPECT_EQ(choice.AfterFailure(kBroken, 0), std::nullopt);
}

TEST(GatewayChoiceTest, GivesUpWithoutProgress) {
  GatewayChoice choice(2);
  int attempts = 1;
  while (choice.AfterFailure(kBroken, 0)) ++attempts;
  EXPECT_EQ(attempts, 1 + 2 * GatewayChoice::kRoundsWithoutProgress);
}

TEST(GatewayChoiceTest, ProgressStartsTheCountAnew) {
  GatewayChoice choice(2);
  for (size_t tokens = 1; tokens < 100; ++tokens) {
    ASSERT_TRUE(choice.AfterFailure(kBroken, tokens).has_value());
  }
}

TEST(GatewayChoiceTest, OnlyAnUnavailableGatewayIsWorthAnother) {
  for (const absl::Status& status :
       {absl::InvalidArgumentError("temperature"), absl::DeadlineExceededError("late"),
        absl::ResourceExhaustedError("queue")}) {
    EXPECT_EQ(GatewayChoice(2).AfterFailure(status, 5), std::nullopt);
  }
}

}  // namespace
}  // namespace sauva
