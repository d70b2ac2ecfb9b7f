#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/tokenizer.h"
#include "net/tls.h"
#include "proto/control.h"

namespace grpc {
class Channel;
}

namespace sauva {

// A call under way to another process. Letting go of it does not end it.
class PendingCall {
 public:
  virtual ~PendingCall() = default;
  // The answer then comes soon, with CANCELLED unless it was on its way.
  virtual void Cancel() = 0;
};

// The files a tokenizer is made from, with the model they belong to.
struct FetchedModel {
  ModelRef model;
  ModelFiles files;
};

inline constexpr size_t kMaxFetchedBytes = 256 << 20;

// What the gateway asks the coordinator. Each answer is given once, on one of gRPC's
// threads, even when the call fails at once. Errors name the coordinator's address.
// Thread: any.
class CoordinatorClient {
 public:
  // Errors: as MakeChannel. Connects when first used, and again whenever it must.
  static absl::StatusOr<std::unique_ptr<CoordinatorClient>> Create(const std::string& address,
                                                                   const TlsOptions& tls);

  // Shared: the session's owner holds it to cancel, gRPC until it has answered.
  std::shared_ptr<PendingCall> Dispatch(
      const DispatchRequest& request, absl::Time deadline,
      std::function<void(absl::StatusOr<DispatchReply>)> on_reply);

  void Status(absl::Time deadline, std::function<void(absl::StatusOr<ClusterStatus>)> on_reply);

  // Errors also: RESOURCE_EXHAUSTED for more than kMaxFetchedBytes.
  void GetModelFiles(const std::string& model, absl::Time deadline,
                     std::function<void(absl::StatusOr<FetchedModel>)> on_reply);

  const std::string& address() const { return address_; }

 private:
  CoordinatorClient(std::string address, std::shared_ptr<grpc::Channel> channel)
      : address_(std::move(address)), channel_(std::move(channel)) {}

  const std::string address_;
  const std::shared_ptr<grpc::Channel> channel_;  // shared with gRPC's own threads
};

}  // namespace sauva
