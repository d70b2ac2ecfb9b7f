#include "base/parse_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sauva {
namespace {

TEST(ParseBytesTest, ReadsSizesAsPeopleWriteThem) {
  EXPECT_EQ(*ParseBytes("1048576"), 1048576u);
  EXPECT_EQ(*ParseBytes("512MiB"), 512u << 20);
  EXPECT_EQ(*ParseBytes("1.5GB"), 1500000000u);
  EXPECT_EQ(*ParseBytes("2G"), 2000000000u);
  EXPECT_EQ(*ParseBytes("0"), 0u);
}

TEST(ParseBytesTest, NamesWhatIsNoSize) {
  for (const std::string bad : {"", "GiB", "-1", "1 GiB", "1Gib", "nan", "1e400", "99999TiB"}) {
    const auto bytes = ParseBytes(bad);
    EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(bytes.status().message()), testing::HasSubstr("'" + bad + "'"));
  }
}

TEST(FormatBytesTest, UsesBinaryUnits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(14680064), "14.0 MiB");
}

}  // namespace
}  // namespace sauva
