#include "gateway/raw_message_codec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/utf8.h"

namespace sauva {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

// What is wrong with the strings of a message of this type; nothing if they are right.
// The public API's messages do not contain themselves, so the depth is bounded.
std::optional<std::string> FindTrouble(const UnknownFieldSet& fields, const Descriptor& type,
                                       const std::string& path) {
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* known = type.FindFieldByNumber(field.number());
    if (known == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const std::string name = absl::StrCat(path, ".", known->name());
    if (known->type() == FieldDescriptor::TYPE_STRING) {
      if (const auto offset = FindInvalidUtf8(field.length_delimited())) {
        return absl::StrCat(name, " is not valid UTF-8 at byte ", *offset);
      }
    } else if (known->type() == FieldDescriptor::TYPE_MESSAGE) {
      UnknownFieldSet inner;
      if (!inner.ParseFromString(field.length_delimited())) {
        return absl::StrCat(name, " is no ", known->message_type()->full_name());
      }
      if (auto trouble = FindTrouble(inner, *known->message_type(), name)) return trouble;
    }
  }
  return std::nullopt;
}

}  // namespace

absl::Status ReadMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& out) {
  grpc::ByteBuffer copy(bytes);  // of references; reading takes it apart
  grpc::ProtoBufferReader reader(&copy);
  if (reader.status().ok() && out.ParseFromZeroCopyStream(&reader)) return absl::OkStatus();

  const Descriptor& type = *out.GetDescriptor();
  grpc::Slice slice;
  UnknownFieldSet fields;
  std::optional<std::string> trouble;
  if (bytes.DumpToSingleSlice(&slice).ok() &&
      fields.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
    trouble = FindTrouble(fields, type, type.name());
  }
  return absl::InvalidArgumentError(
      trouble.value_or(absl::StrCat("the request's bytes are no ", type.full_name())));
}

grpc::ByteBuffer WriteMessage(const google::protobuf::Message& in) {
  grpc::Slice slice(in.ByteSizeLong());
  in.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return {&slice, 1};
}

}  // namespace sauva
