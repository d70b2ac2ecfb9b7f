#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "gateway/raw_message_codec.h"
#include "sauva/v1/generation.pb.h"

namespace sauva::testing {
namespace {

using ::testing::HasSubstr;

grpc::ByteBuffer Bytes(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

// A field of bytes as Protobuf writes it, up to 127 bytes long.
std::string Field(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}

absl::Status Read(const std::string& bytes) {
  v1::GenerateRequest request;
  return ReadMessage(Bytes(bytes), request);
}

TEST(RawMessageTest, SurvivesTheRoundTrip) {
  v1::GenerateRequest request;
  request.set_text("\u00fcn\u00ef");
  request.mutable_sampling()->set_seed(7);
  v1::GenerateRequest back;
  ASSERT_TRUE(ReadMessage(WriteMessage(request), back).ok());
  EXPECT_EQ(back.SerializeAsString(), request.SerializeAsString());
  ASSERT_TRUE(ReadMessage(Bytes(""), back).ok()) << "no field is set";
}

TEST(RawMessageTest, NamesTheFieldThatIsNotUtf8AndTheByte) {
  const absl::Status text = Read(Field(5, "ab\xff"));
  EXPECT_EQ(text.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(text.message(), "GenerateRequest.text is not valid UTF-8 at byte 2");
  EXPECT_EQ(Read(Field(1, "\xc3")).message(), "GenerateRequest.model is not valid UTF-8 at byte 0");
  EXPECT_EQ(Read(Field(5, "fine") + Field(8, Field(9, "a\xed\xa0\x80"))).message(),
            "GenerateRequest.sampling.stop is not valid UTF-8 at byte 1");
  EXPECT_EQ(Read(Field(7, Field(1, Field(2, "\x80")))).message(),
            "GenerateRequest.messages.messages.content is not valid UTF-8 at byte 0");
}

TEST(RawMessageTest, SaysThatBytesAreNoMessage) {
  EXPECT_THAT(std::string(Read("\x2a\x05"
                               "ab")
                              .message()),
              HasSubstr("no sauva.v1.GenerateRequest"));
  EXPECT_THAT(std::string(Read("\xff\xff\xff").message()),
              HasSubstr("no sauva.v1.GenerateRequest"));
  EXPECT_THAT(std::string(Read(Field(8, "\x48")).message()),
              HasSubstr("GenerateRequest.sampling is no sauva.v1.SamplingParams"));
}

}  // namespace
}  // namespace sauva::testing
