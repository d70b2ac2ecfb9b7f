#include "gateway/admission.h"

#include <gtest/gtest.h>

namespace sauva::testing {
namespace {

TEST(AdmissionTest, TakesSamplesUpToItsLimit) {
  Admission admission({.max_samples = 3});
  EXPECT_TRUE(admission.Enter(2).ok());
  EXPECT_EQ(admission.Enter(2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(admission.Enter(1).ok());
  EXPECT_EQ(admission.Enter(1).code(), absl::StatusCode::kResourceExhausted);
  admission.Leave(1);
  EXPECT_TRUE(admission.Enter(1).ok());
  EXPECT_EQ(admission.num_samples(), 3);
}

TEST(AdmissionTest, LetsTokensWaitUpToItsLimitAndOneLargeRequestAlone) {
  Admission admission({.max_queue_tokens = 100});
  EXPECT_TRUE(admission.Queue(250).ok());
  EXPECT_EQ(admission.Queue(1).code(), absl::StatusCode::kResourceExhausted);
  admission.Dequeue(250);
  EXPECT_TRUE(admission.Queue(99).ok());
  EXPECT_TRUE(admission.Queue(1).ok());
  const absl::Status full = admission.Queue(1);
  EXPECT_EQ(full.message(),
            "100 tokens wait in the gateway, which lets at most 100 wait; this request has 1");
}

}  // namespace
}  // namespace sauva::testing
