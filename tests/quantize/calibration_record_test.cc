#include "quantize/calibration_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

std::string Words(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < 5; ++j) text += static_cast<char>('a' + random() % 26);
    text += i % 12 == 11 ? "\n" : " ";
  }
  return text;
}

TEST(CalibrationRecordTest, AllWindowsAreInTheTextTheyAreOfHoweverItsLinesBreak) {
  const std::string text = Words(4000, 1);
  const CalibrationRecord record =
      CalibrationRecord::Of({text.substr(0, 6000), text.substr(9001, 7000)});
  EXPECT_GT(record.num_windows(), 200);
  EXPECT_EQ(record.CountIn(text), record.num_windows());
  std::string joined = "Something else first.\r\n";
  for (const char c : text) joined += c == '\n' ? ' ' : c;
  EXPECT_EQ(record.CountIn(joined), record.num_windows());
}

TEST(CalibrationRecordTest, AnotherTextHasNoneOfThem) {
  const CalibrationRecord record = CalibrationRecord::Of({Words(4000, 1)});
  EXPECT_EQ(record.CountIn(Words(4000, 2)), 0);
  EXPECT_EQ(record.CountIn(""), 0);
  EXPECT_EQ(record.CountIn("short"), 0);
}

TEST(CalibrationRecordTest, APassageInTheMiddleOfAnotherTextIsFound) {
  const std::string sample = Words(4000, 1);
  const CalibrationRecord record = CalibrationRecord::Of({sample});
  const int64_t distance = 4000 * 5 / record.num_windows() + 1;
  const auto length = static_cast<size_t>((distance + CalibrationRecord::kWindowBytes) * 6 / 5 +
                                          2);  // spaces included
  for (const size_t first : {size_t{17}, size_t{5003}, sample.size() - length - 400}) {
    const std::string text = Words(500, 2) + sample.substr(first, length) + Words(500, 3);
    EXPECT_GE(record.CountIn(text), 1) << first;
    EXPECT_LE(record.CountIn(text), 3) << first;
  }
}

TEST(CalibrationRecordTest, ManySamplesLeaveNoMoreThanTheLimit) {
  std::vector<std::string> samples;
  for (uint32_t i = 0; i < 3000; ++i) samples.push_back(Words(40, i));
  const CalibrationRecord record = CalibrationRecord::Of(samples);
  EXPECT_LE(record.num_windows(), CalibrationRecord::kMaxWindows);
  EXPECT_GT(record.num_windows(), CalibrationRecord::kMaxWindows * 9 / 10);
  std::string early;
  std::string late;
  for (size_t i = 0; i < 1500; ++i) early += samples[i];
  for (size_t i = 1500; i < 3000; ++i) late += samples[i];
  EXPECT_GT(record.CountIn(early), record.num_windows() * 4 / 10);
  EXPECT_GT(record.CountIn(late), record.num_windows() * 4 / 10);
}

class CalibrationFileTest : public testing::Test {
 protected:
  static std::string Directory() {
    static const std::string directory = WriteTinyCheckpoint("calibration_record", {});
    return directory;
  }
  static std::string Refusal(const std::string& content) {
    WriteFile(Directory() + "/" + CalibrationRecord::kFileName, content);
    const auto read = CalibrationRecord::Read(Directory());
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << content;
    return std::string(read.status().message());
  }
};

TEST_F(CalibrationFileTest, IsReadBackAsItWasWritten) {
  std::filesystem::remove(Directory() + "/" + CalibrationRecord::kFileName);
  const auto none = CalibrationRecord::Read(Directory());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->has_value());

  const std::string text = Words(3000, 4);
  const CalibrationRecord written = CalibrationRecord::Of({text});
  EXPECT_LT(written.Json().size(), 32u << 10);
  WriteFile(Directory() + "/" + CalibrationRecord::kFileName, written.Json());
  const auto read = CalibrationRecord::Read(Directory());
  ASSERT_TRUE(read.ok() && read->has_value()) << read.status();
  EXPECT_EQ((*read)->Json(), written.Json());
  EXPECT_EQ((*read)->CountIn(text), written.num_windows());
}

TEST_F(CalibrationFileTest, WhatIsNoRecordIsRefusedByName) {
  EXPECT_THAT(Refusal("nonsense"), HasSubstr("calibration.json"));
  EXPECT_THAT(Refusal("[]"), HasSubstr("window_bytes is []; 48 is known"));
  EXPECT_THAT(Refusal(R"({"window_bytes": 64, "windows": []})"), HasSubstr("window_bytes is 64"));
  EXPECT_THAT(Refusal(R"({"window_bytes": 48})"), HasSubstr("windows is no list"));
  EXPECT_THAT(Refusal(R"({"window_bytes": 48, "windows": ["12", "xyz"]})"),
              HasSubstr("window \"xyz\" is no hexadecimal number"));
}

}  // namespace
}  // namespace sauva
