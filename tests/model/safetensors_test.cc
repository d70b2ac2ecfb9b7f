#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

// Parses a file of this header and `num_bytes` of data.
absl::Status Parse(const std::string& header, size_t num_bytes) {
  const std::string file = SafetensorsBytes(header, std::string(num_bytes, 'x'));
  return ParseSafetensorsHeader("model.safetensors", Bytes(file)).status();
}

void ExpectRefused(const absl::Status& status, const std::vector<std::string>& words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  for (const std::string& word : words) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
}

TEST(SafetensorsTest, ReadsTensorsInAnyOrderOfOffsets) {
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"}," + Tensor("b", "F16", "[2,3]", "[4,16]") + "," +
      Tensor("a", "F32", "[]", "[0,4]") + "," + Tensor("empty", "I8", "[0,7]", "[16,16]") + "}  ";
  const std::string file = SafetensorsBytes(header, "0123456789abcdef");
  const auto parsed = ParseSafetensorsHeader("model.safetensors", Bytes(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->entries.size(), 3u);
  EXPECT_EQ(parsed->entries[0].name, "a");
  EXPECT_TRUE(parsed->entries[0].shape.empty());
  EXPECT_EQ(parsed->entries[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.substr(parsed->entries[1].begin, 12), "456789abcdef");
  EXPECT_EQ(parsed->data_begin, 8 + header.size());
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string header = "{" + Tensor("a", "F32", "[4]", "[0,16]") + "}";
  const std::string whole = SafetensorsBytes(header, "0123456789abcdef");
  ASSERT_TRUE(ParseSafetensorsHeader("model.safetensors", Bytes(whole)).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    ExpectRefused(
        ParseSafetensorsHeader("model.safetensors", Bytes(whole.substr(0, size))).status(), {});
  }
  ExpectRefused(ParseSafetensorsHeader("model.safetensors", Bytes(whole.substr(0, 7))).status(),
                {"truncated", "7 bytes"});
}

TEST(SafetensorsTest, RefusesAHeaderAboveItsLimit) {
  for (const uint64_t length : {kMaxSafetensorsHeaderBytes + 1, ~uint64_t{0}}) {
    std::string file = SafetensorsBytes("{}", "");
    std::memcpy(file.data(), &length, sizeof(length));
    ExpectRefused(ParseSafetensorsHeader("model.safetensors", Bytes(file)).status(),
                  {std::to_string(length), "limit 100000000"});
  }
}

TEST(SafetensorsTest, RefusesWhatIsNotAHeader) {
  for (const char* header : {"", "[]", "7", "null", "\"a\"", "{", "{}}", "{\"a\":1}", "{\"a\":[]}",
                             "{\"a\":{}}", "nonsense", "{\"a\":{\"dtype\":\"F32\"}}", "\xff\xfe"}) {
    ExpectRefused(Parse(header, 0), {});
  }
}

TEST(SafetensorsTest, RefusesDeepNestingWithoutFollowingIt) {
  ExpectRefused(Parse(std::string(1'000'000, '['), 0), {});
  ExpectRefused(Parse("{\"a\":{\"shape\":" + std::string(1'000'000, '['), 0), {"an array"});
}

TEST(SafetensorsTest, NamesATensorWithAnUnknownType) {
  ExpectRefused(Parse("{" + Tensor("w", "F31", "[1]", "[0,4]") + "}", 4),
                {"tensor 'w'", "unknown dtype 'F31'"});
}

TEST(SafetensorsTest, NamesATensorWhoseSizeContradictsItsShape) {
  ExpectRefused(Parse("{" + Tensor("w", "F32", "[3]", "[0,8]") + "}", 8),
                {"tensor 'w'", "[3]", "8 bytes", "expected 12"});
}

TEST(SafetensorsTest, RefusesAShapeWhoseSizeOverflows) {
  const std::string huge = "[4294967296,4294967296,4]";
  ExpectRefused(Parse("{" + Tensor("w", "F32", huge, "[0,0]") + "}", 0), {"overflows"});
  ExpectRefused(Parse("{" + Tensor("w", "F32", "[18446744073709551615]", "[0,0]") + "}", 0),
                {"dimension of 18446744073709551615"});
  ExpectRefused(Parse("{" + Tensor("w", "F32", "[99999999999999999999]", "[0,0]") + "}", 0), {});
  ExpectRefused(Parse("{" + Tensor("w", "F32", "[-1]", "[0,0]") + "}", 0), {"-1"});
  ExpectRefused(Parse("{" + Tensor("w", "F32", "[1.0]", "[0,4]") + "}", 4), {"1.0"});
  ExpectRefused(Parse("{" + Tensor("w", "I8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", 1),
                {"more than 8 dimensions"});
}

TEST(SafetensorsTest, RefusesOverlapsGapsAndOffsetsOutOfRange) {
  const std::string first = Tensor("a", "F32", "[2]", "[0,8]");
  ExpectRefused(Parse("{" + first + "," + Tensor("b", "F32", "[2]", "[4,12]") + "}", 12),
                {"tensor 'b'", "offset 4", "expected 8", "overlap"});
  ExpectRefused(Parse("{" + first + "," + Tensor("b", "F32", "[2]", "[12,20]") + "}", 20),
                {"tensor 'b'", "offset 12", "expected 8", "gap"});
  ExpectRefused(Parse("{" + first + "}", 4), {"tensor 'a'", "[0, 8]", "4 bytes"});
  ExpectRefused(Parse("{" + Tensor("a", "F32", "[2]", "[8,0]") + "}", 8), {"tensor 'a'"});
  ExpectRefused(Parse("{" + Tensor("a", "F32", "[2]", "[0]") + "}", 8), {"1 data_offsets"});
  ExpectRefused(Parse("{" + Tensor("a", "F32", "[2]", "[0,8,8]") + "}", 8), {"more than 2"});
}

TEST(SafetensorsTest, RefusesBytesAfterTheLastTensor) {
  ExpectRefused(Parse("{" + Tensor("a", "F32", "[2]", "[0,8]") + "}", 9), {"1 bytes after"});
  ExpectRefused(Parse("{}", 1), {"1 bytes after"});
}

TEST(SafetensorsTest, RefusesNamesAndFieldsThatComeTwice) {
  const std::string a = Tensor("a", "F32", "[1]", "[0,4]");
  ExpectRefused(Parse("{" + a + "," + a + "}", 4), {"tensor 'a' is there twice"});
  ExpectRefused(Parse(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
                {"two fields 'dtype'"});
  ExpectRefused(Parse(R"({"a":{"kind":"F32"}})", 0), {"unknown field 'kind'"});
  ExpectRefused(Parse(R"({"__metadata__":{},"__metadata__":{}})", 0), {"__metadata__"});
}

TEST(SafetensorsTest, RefusesAnythingButTextAsMetadata) {
  ExpectRefused(Parse(R"({"__metadata__":{"a":{"b":"c"}}})", 0), {});
  ExpectRefused(Parse(R"({"__metadata__":{"a":1}})", 0), {});
  ExpectRefused(Parse(R"({"__metadata__":"a"})", 0), {});
}

// A sharded directory whose index can be changed.
class IndexTest : public ::testing::Test {
 protected:
  void SetShardOf(const std::string& tensor, const nlohmann::json& shard) {
    auto index = nlohmann::json::parse(ReadFile(index_path_));
    index["weight_map"][tensor] = shard;
    WriteFile(index_path_, index.dump());
  }
  absl::Status Open() { return OpenSafetensors(directory_).status(); }

  const std::string directory_ = WriteTinyCheckpoint("sharded", {.num_shards = 2});
  const std::string index_path_ = directory_ + "/model.safetensors.index.json";
};

TEST_F(IndexTest, NamesAMissingShard) {
  std::filesystem::remove(directory_ + "/model-2-of-2.safetensors");
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Open().message()), HasSubstr("model-2-of-2.safetensors"));
}

TEST_F(IndexTest, NeverLeavesTheDirectory) {
  const std::string outside = directory_ + "/../outside.safetensors";
  WriteFile(outside, ReadFile(directory_ + "/model-1-of-2.safetensors"));
  for (const char* shard :
       {"../outside.safetensors", "/etc/outside.safetensors", "..\\outside.safetensors",
        "a/b.safetensors", ".hidden.safetensors", "model.bin", ".safetensors", ""}) {
    SetShardOf("model.norm.weight", shard);
    EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument) << shard;
    EXPECT_THAT(std::string(Open().message()),
                AllOf(HasSubstr("model.norm.weight"), HasSubstr("same directory")));
  }
  SetShardOf("model.norm.weight", 7);
  EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(IndexTest, NamesATensorThatIsNotWhereTheIndexSays) {
  SetShardOf("model.embed_tokens.weight", "model-2-of-2.safetensors");
  EXPECT_THAT(std::string(Open().message()),
              AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("model-2-of-2"),
                    HasSubstr("found in model-1-of-2")));
  SetShardOf("model.embed_tokens.weight", "model-1-of-2.safetensors");
  ASSERT_TRUE(Open().ok());
  SetShardOf("model.none.weight", "model-1-of-2.safetensors");
  EXPECT_THAT(std::string(Open().message()),
              AllOf(HasSubstr("model.none.weight"), HasSubstr("found nowhere")));
}

TEST_F(IndexTest, NamesATensorThatIsInTwoShards) {
  WriteFile(directory_ + "/model-2-of-2.safetensors",
            ReadFile(directory_ + "/model-1-of-2.safetensors"));
  EXPECT_THAT(std::string(Open().message()), HasSubstr("in two shards"));
}

TEST_F(IndexTest, RefusesAnIndexWithoutAMap) {
  for (const char* index : {"", "{", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{}}"}) {
    WriteFile(index_path_, index);
    EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument) << index;
    EXPECT_THAT(std::string(Open().message()), HasSubstr("index.json"));
  }
}

TEST(SafetensorsDirectoryTest, SaysWhatItReadsWhereThereIsNothing) {
  const std::string directory = WriteTinyCheckpoint("empty", {});
  std::filesystem::remove(directory + "/model.safetensors");
  const absl::Status status = OpenSafetensors(directory).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(directory), HasSubstr("safetensors files only")));
}

TEST(SafetensorsDirectoryTest, RefusesADirectoryInTheNameOfAFile) {
  const std::string directory = WriteTinyCheckpoint("odd", {});
  std::filesystem::remove(directory + "/model.safetensors");
  std::filesystem::create_directory(directory + "/model.safetensors");
  EXPECT_EQ(OpenSafetensors(directory).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sauva
