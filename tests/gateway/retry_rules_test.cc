#include "gateway/retry_rules.h"

#include <gtest/gtest.h>

namespace sauva::testing {
namespace {

TEST(RetryRulesTest, AHeadsWordAboutTheRequestIsFinal) {
  EXPECT_EQ(JudgeHead(absl::StatusCode::kInvalidArgument), Verdict::kRefuse);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kOutOfRange), Verdict::kRefuse);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kUnauthenticated), Verdict::kRefuse);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kPermissionDenied), Verdict::kRefuse);
}

TEST(RetryRulesTest, ALostPipelineIsNeverFinal) {
  EXPECT_EQ(JudgeHead(absl::StatusCode::kUnavailable), Verdict::kMove);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kFailedPrecondition), Verdict::kMove);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kAborted), Verdict::kMove);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kInternal), Verdict::kFault);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kOk), Verdict::kFault);
  EXPECT_EQ(JudgeHead(absl::StatusCode::kResourceExhausted), Verdict::kBusy);
}

TEST(RetryRulesTest, ACoordinatorThatDoesNotKnowTheModelIsFinal) {
  EXPECT_EQ(JudgeDispatch(absl::StatusCode::kNotFound), Verdict::kRefuse);
  EXPECT_EQ(JudgeDispatch(absl::StatusCode::kUnavailable), Verdict::kMove);
  EXPECT_EQ(JudgeDispatch(absl::StatusCode::kResourceExhausted), Verdict::kBusy);
  EXPECT_EQ(JudgeDispatch(absl::StatusCode::kInternal), Verdict::kFault);
}

TEST(RetryRulesTest, PausesGrowFromNothingToTheLargest) {
  const Backoff backoff{.first = absl::Milliseconds(10), .largest = absl::Seconds(1)};
  EXPECT_EQ(PauseAfter(1, backoff, 3), absl::ZeroDuration());
  for (int attempts = 2; attempts < 100; ++attempts) {
    const absl::Duration whole =
        std::min(absl::Milliseconds(10) * (1 << std::min(attempts - 2, 20)), absl::Seconds(1));
    for (uint64_t entropy = 0; entropy < 20; ++entropy) {
      const absl::Duration pause = PauseAfter(attempts, backoff, entropy);
      EXPECT_GE(pause, whole / 2);
      EXPECT_LE(pause, whole);
    }
  }
  EXPECT_NE(PauseAfter(9, backoff, 1), PauseAfter(9, backoff, 2)) << "samples do not march in step";
}

}  // namespace
}  // namespace sauva::testing
