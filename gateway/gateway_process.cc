#include "gateway/gateway_process.h"

#include <grpcpp/impl/codegen/service_type.h>
#include <pthread.h>
#include <signal.h>

#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/announce.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/status_macros.h"
#include "net/server.h"

namespace sauva {
namespace {

constexpr const char* kServiceName = "sauva.v1.GenerationService";
// After the last request has ended: for its last response to reach the client.
constexpr absl::Duration kFarewell = absl::Seconds(1);

}  // namespace

struct GatewayProcess::Parts {
  Parts(const GatewayConfig& config_in, Metrics& metrics,
        std::unique_ptr<CoordinatorClient> coordinator_in)
      : config(config_in),
        gateway_metrics(metrics),
        coordinator(std::move(coordinator_in)),
        heads(config.tls),
        gateway({.loop = loop,
                 .text_loop = text_loop,
                 .coordinator = *coordinator,
                 .heads = heads,
                 .metrics = gateway_metrics},
                config.gateway, [this](Gateway::Health health) { ShowHealth(health); }),
        service(MakeGatewayService(gateway, *coordinator, config.service)) {}
  ~Parts() {
    if (server != nullptr) server->Shutdown(absl::ZeroDuration());
    text_loop.Stop();
    loop->Stop();
  }

  void ShowHealth(Gateway::Health health) {
    const auto shown = health == Gateway::Health::kServing ? RpcServer::Health::kServing
                                                           : RpcServer::Health::kNotServing;
    server->SetHealth("", shown);
    server->SetHealth(kServiceName, shown);
  }

  const GatewayConfig config;
  GatewayMetrics gateway_metrics;
  const OwnerLoop loop = std::make_shared<EventLoop>();
  EventLoop text_loop;
  std::unique_ptr<CoordinatorClient> coordinator;
  HeadClient heads;
  Gateway gateway;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<RpcServer> server;
  bool drained = false;
};

GatewayProcess::GatewayProcess(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
GatewayProcess::~GatewayProcess() = default;

absl::StatusOr<std::unique_ptr<GatewayProcess>> GatewayProcess::Start(const GatewayConfig& config,
                                                                      Metrics& metrics) {
  std::unique_ptr<CoordinatorClient> coordinator;
  ASSIGN_OR_RETURN(coordinator, CoordinatorClient::Create(config.coordinator, config.tls));
  auto parts = std::make_unique<Parts>(config, metrics, std::move(coordinator));
  ASSIGN_OR_RETURN(parts->server, RpcServer::Start({.address = config.listen,
                                                    .tls = config.tls,
                                                    .client_certificate = ClientCertificate::kNone},
                                                   {parts->service.get()}));
  parts->ShowHealth(Gateway::Health::kNotServing);
  parts->gateway.Start();
  return std::unique_ptr<GatewayProcess>(new GatewayProcess(std::move(parts)));
}

const std::string& GatewayProcess::address() const { return parts_->server->address(); }

void GatewayProcess::Drain() {
  if (std::exchange(parts_->drained, true)) return;
  LogInfo("draining", {{"timeout", absl::FormatDuration(parts_->config.drain_timeout)}});
  std::promise<void> empty;
  parts_->gateway.Drain(absl::Now() + parts_->config.drain_timeout, [&] { empty.set_value(); });
  empty.get_future().wait();
  parts_->server->Shutdown(kFarewell);
}

absl::Status RunGateway(const GatewayConfig& config) {
  // Blocked before any thread starts, so that only sigwait below sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Metrics metrics;
  RETURN_IF_ERROR(metrics.Serve(config.metrics));
  std::unique_ptr<GatewayProcess> process;
  ASSIGN_OR_RETURN(process, GatewayProcess::Start(config, metrics));
  LogInfo("gateway listens", {{"address", process->address()},
                              {"metrics", metrics.address()},
                              {"coordinator", config.coordinator}});
  AnnounceListening("gateway", process->address(), metrics.address());
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  LogInfo("signal", {{"number", signal_number}});
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  process->Drain();
  return absl::OkStatus();
}

}  // namespace sauva
