#include "net/traceparent.h"

#include <gtest/gtest.h>

namespace sauva {
namespace {

const std::string kValid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceparentTest, TakesWhatTheSpecificationCallsValid) {
  EXPECT_TRUE(IsTraceparent(kValid));
  EXPECT_TRUE(IsTraceparent("cc" + kValid.substr(2)));
  EXPECT_TRUE(IsTraceparent("cc" + kValid.substr(2) + "-later"));
}

TEST(TraceparentTest, RefusesWhatIsNot) {
  for (const std::string& text :
       {std::string(), kValid.substr(1), kValid + "-more", kValid + "0", "ff" + kValid.substr(2),
        "cc" + kValid.substr(2) + "x", "0G" + kValid.substr(2),
        std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
        std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
        std::string("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")}) {
    EXPECT_FALSE(IsTraceparent(text)) << text;
  }
}

TEST(TraceparentTest, AChildKeepsTraceAndFlags) {
  const std::string child = ChildTraceparent(kValid, 0xabc);
  EXPECT_EQ(child, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01");
  EXPECT_TRUE(IsTraceparent(child));
}

}  // namespace
}  // namespace sauva
