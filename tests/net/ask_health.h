#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace sauva::testing {

enum class AskedHealth { kUnknown, kServing, kNotServing };

// What grpc.health.v1 answers for a service, "" being the whole server, within 20 s; kUnknown
// for a service that it does not know, and for no answer.
AskedHealth AskHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

}  // namespace sauva::testing
