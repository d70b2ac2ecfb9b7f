#include "base/parse_bytes.h"

#include <gtest/gtest.h>

namespace sauva {
namespace {

TEST(ParseBytesTest, ReadsPlainNumbersAndBothKindsOfUnits) {
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseBytes("1048576"), 1048576u);
  EXPECT_EQ(*ParseBytes("2K"), 2000u);
  EXPECT_EQ(*ParseBytes("2KiB"), 2048u);
  EXPECT_EQ(*ParseBytes("512MiB"), 512u << 20);
  EXPECT_EQ(*ParseBytes("1.5GB"), 1500000000u);
  EXPECT_EQ(*ParseBytes("1TiB"), uint64_t{1} << 40);
}

TEST(ParseBytesTest, RefusesWhatIsNotASizeAndNamesIt) {
  for (const char* text : {"", "MiB", "-1", "12 MB", "1mb", "1e3", "nan", "inf", "5MiBs"}) {
    const auto bytes = ParseBytes(text);
    ASSERT_FALSE(bytes.ok()) << text;
    EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(bytes.status().message().find("'" + std::string(text) + "'"), std::string::npos);
  }
}

TEST(ParseBytesTest, RefusesMoreThanCanBeCounted) {
  EXPECT_TRUE(ParseBytes("8000TiB").ok());
  EXPECT_FALSE(ParseBytes("9000TiB").ok());
}

TEST(ParseBytesTest, WritesSizesForPeople) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(14'680'064), "14.0 MiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 40), "3.0 TiB");
}

}  // namespace
}  // namespace sauva
