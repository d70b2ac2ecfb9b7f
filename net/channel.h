#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/tls.h"

namespace sauva {

// A peer that answers no ping for interval + timeout counts as gone, so that a frozen or
// unplugged one is noticed without waiting for TCP.
struct KeepaliveOptions {
  absl::Duration interval = absl::Seconds(1);
  absl::Duration timeout = absl::Seconds(3);
};

// Messages between services are at most this large.
inline constexpr int kMaxMessageBytes = 16 << 20;

// A channel to host:port with keepalive, quick reconnects (0.1 to 2 s) and its own
// connection. Never blocks. Errors: as MakeChannelCredentials.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address,
                                                           const TlsOptions& tls,
                                                           const KeepaliveOptions& keepalive = {});

}  // namespace sauva
