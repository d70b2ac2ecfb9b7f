#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(LogTest, WritesOneLineOfKeysAndValues) {
  ASSERT_TRUE(ConfigureLog("worker", "info").ok());
  testing::internal::CaptureStderr();
  LogInfo("stage loaded", {{"layers", 3}, {"path", "/a b"}, {"view", std::string_view("v")}});
  LogDebug("not shown");
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_THAT(out, HasSubstr("level=info role=worker event=\"stage loaded\" layers=3 "
                             "path=\"/a b\" view=v\n"));
  EXPECT_THAT(out, Not(HasSubstr("not shown")));
}

TEST(LogTest, AValueCannotForgeALine) {
  testing::internal::CaptureStderr();
  LogWarning("odd", {{"value", "x\nlevel=error \"quoted\\"}});
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
  EXPECT_THAT(out, HasSubstr("value=\"x level=error \\\"quoted\\\\\""));
}

TEST(LogTest, AnUnknownLevelIsNamed) {
  EXPECT_THAT(std::string(ConfigureLog("x", "loud").message()), HasSubstr("loud"));
}

}  // namespace
}  // namespace sauva
