#include "gateway/retry_info_codec.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <string>

#include "net/status_codec.h"

namespace sauva {
namespace {

using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

constexpr uint32_t kLengthDelimited = 2;  // wire type of strings and messages

void WriteBytes(CodedOutputStream& out, uint32_t field_number, const std::string& bytes) {
  out.WriteTag(field_number << 3 | kLengthDelimited);
  out.WriteVarint32(static_cast<uint32_t>(bytes.size()));
  out.WriteString(bytes);
}

// RetryInfo { Duration retry_delay = 1; }
std::string RetryInfoBytes(absl::Duration retry_after) {
  google::protobuf::Duration delay;
  delay.set_seconds(absl::IDivDuration(retry_after, absl::Seconds(1), &retry_after));
  delay.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(retry_after)));
  std::string bytes;
  {
    StringOutputStream stream(&bytes);
    CodedOutputStream out(&stream);  // its end writes what it buffered
    WriteBytes(out, 1, delay.SerializeAsString());
  }
  return bytes;
}

}  // namespace

// Status { int32 code = 1; string message = 2; repeated Any details = 3; }
grpc::Status WithRetryInfo(const absl::Status& status, absl::Duration retry_after) {
  google::protobuf::Any detail;
  detail.set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  detail.set_value(RetryInfoBytes(retry_after));
  std::string bytes;
  {
    StringOutputStream stream(&bytes);
    CodedOutputStream out(&stream);
    out.WriteTag(1 << 3);
    out.WriteVarint32(static_cast<uint32_t>(status.raw_code()));
    WriteBytes(out, 2, std::string(status.message()));
    WriteBytes(out, 3, detail.SerializeAsString());
  }
  const grpc::Status plain = ToGrpc(status);
  return {plain.error_code(), plain.error_message(), bytes};
}

}  // namespace sauva
