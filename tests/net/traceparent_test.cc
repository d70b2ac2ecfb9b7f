#include "net/traceparent.h"

#include <gtest/gtest.h>

namespace sauva {
namespace {

const std::string kValid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceparentTest, TakesWhatTheSpecificationCallsValid) {
  const std::optional<TraceContext> context = ParseTraceparent(kValid);
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id.size(), 16u);
  EXPECT_EQ(context->trace_id.substr(0, 2), "\x4b\xf9");
  EXPECT_EQ(context->span_id, 0x00f067aa0ba902b7u);
  EXPECT_TRUE(context->sampled());
  EXPECT_FALSE(ParseTraceparent(kValid.substr(0, 53) + "fe")->sampled());
  EXPECT_EQ(ParseTraceparent("cc" + kValid.substr(2)), context);
  EXPECT_EQ(ParseTraceparent("cc" + kValid.substr(2) + "-later"), context);
}

TEST(TraceparentTest, RefusesWhatIsNot) {
  for (const std::string& text :
       {std::string(), kValid.substr(1), kValid + "-more", kValid + "0", "ff" + kValid.substr(2),
        "cc" + kValid.substr(2) + "x", "0G" + kValid.substr(2),
        std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
        std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
        std::string("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")}) {
    EXPECT_FALSE(ParseTraceparent(text)) << text;
  }
}

TEST(TraceparentTest, AChildKeepsTraceAndFlags) {
  EXPECT_EQ(FormatTraceparent(*ParseTraceparent(kValid)), kValid);
  TraceContext child = *ParseTraceparent(kValid);
  child.span_id = 0xabc;
  EXPECT_EQ(FormatTraceparent(child), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01");
}

}  // namespace
}  // namespace sauva
