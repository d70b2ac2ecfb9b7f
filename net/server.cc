#include "net/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "net/callback_queue.h"
#include "net/grpc_log.h"
#include "net/mutexes.h"

namespace sauva {
namespace {

// All are process-wide settings of gRPC and must be on before the first server.
void EnablePluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    RouteGrpcLog();
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    PrepareMutexes();
    KeepCallbackQueue();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const ServerOptions& options, const std::vector<grpc::Service*>& services) {
  EnablePluginsOnce();
  std::shared_ptr<grpc::ServerCredentials> credentials;
  ASSIGN_OR_RETURN(credentials,
                   MakeServerCredentials(options.tls, options.client_certificate, options.address));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.address, credentials, &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  // Two servers on one port would share its connections by chance.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Peers ping us often (net/channel.h); without this gRPC would call that abuse.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 200);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  // A client that vanished without closing is noticed too.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  auto server = std::unique_ptr<RpcServer>(new RpcServer);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    server->shut_down_ = true;
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.address,
                                               ": the port is in use or the address is not ours"));
  }
  server->address_ = absl::StrCat(options.address.substr(0, options.address.rfind(':')), ":", port);
  server->SetHealth("", Health::kNotServing);
  return server;
}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::SetHealth(const std::string& service, Health health) {
  server_->GetHealthCheckService()->SetServingStatus(service, health == Health::kServing);
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (std::exchange(shut_down_, true)) return;
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

}  // namespace sauva
