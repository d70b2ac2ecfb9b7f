#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

// Messages of the public API as the bytes that gRPC moves. They are read here and not by
// gRPC, which answers what it cannot read with UNIMPLEMENTED and no word of the reason.
namespace sauva {

// Errors: INVALID_ARGUMENT naming the string field that is not UTF-8 and the byte where it
// goes wrong, or saying that the bytes are no such message.
absl::Status ReadMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& out);

grpc::ByteBuffer WriteMessage(const google::protobuf::Message& in);

}  // namespace sauva
