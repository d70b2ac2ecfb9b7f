#include "gateway/gateway_process.h"

#include <grpcpp/impl/codegen/service_type.h>
#include <unistd.h>

#include <array>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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

// What tells this gateway from others: in Kubernetes the pod's name, and the process.
std::string InstanceName() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return absl::StrCat(host.data(), "/", getpid());
}

}  // namespace

struct GatewayProcess::Parts {
  Parts(const GatewayConfig& config_in, Metrics& metrics, ProcessHealth& health_in,
        std::unique_ptr<CoordinatorClient> coordinator_in)
      : config(config_in),
        process_health(health_in),
        gateway_metrics(metrics),
        unread(config.service.max_unread_bytes,
               [this](double change) { gateway_metrics.Unread(change); }),
        coordinator(std::move(coordinator_in)),
        heads(config.tls),
        gateway(
            {.loop = loop,
             .text_loop = text_loop,
             .coordinator = *coordinator,
             .heads = heads,
             .metrics = gateway_metrics,
             .on_spans = config.otlp.collector.empty()
                             ? SampleRunner::OnSpans()
                             : [this](std::vector<Span> made) { spans->Offer(std::move(made)); }},
            config.gateway, [this](Gateway::Health health) { ShowHealth(health); }),
        service(MakeGatewayService(gateway, *coordinator, unread, config.service)) {}
  ~Parts() {
    process_health.Unwatch();
    if (server != nullptr) server->Shutdown(absl::ZeroDuration());
    text_loop.Stop();
    loop->Stop();
  }

  void ShowHealth(Gateway::Health health) {
    const auto shown = health == Gateway::Health::kServing ? RpcServer::Health::kServing
                                                           : RpcServer::Health::kNotServing;
    server->SetHealth("", shown);
    server->SetHealth(kServiceName, shown);
    process_health.SetReady(health == Gateway::Health::kServing);
  }

  absl::Status ConnectCollector() {
    if (config.otlp.collector.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(
        spans,
        OtlpClient::Create(config.otlp, InstanceName(),
                           {.on_sent = [this](size_t n) { gateway_metrics.SpansSent(n); },
                            .on_dropped = [this](size_t n) { gateway_metrics.SpansDropped(n); }}));
    return absl::OkStatus();
  }

  const GatewayConfig config;
  ProcessHealth& process_health;
  GatewayMetrics gateway_metrics;
  std::unique_ptr<OtlpClient> spans;  // null: none are made; else there before the server is
  OutboxMemory unread;                // before all that may hold a call
  const OwnerLoop loop = std::make_shared<EventLoop>();
  EventLoop text_loop;
  std::unique_ptr<CoordinatorClient> coordinator;
  HeadClient heads;
  Gateway gateway;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<RpcServer> server;
};

GatewayProcess::GatewayProcess(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
GatewayProcess::~GatewayProcess() = default;

absl::StatusOr<std::unique_ptr<GatewayProcess>> GatewayProcess::Start(const GatewayConfig& config,
                                                                      Metrics& metrics,
                                                                      ProcessHealth& health) {
  std::unique_ptr<CoordinatorClient> coordinator;
  ASSIGN_OR_RETURN(coordinator, CoordinatorClient::Create(config.coordinator, config.tls));
  auto parts = std::make_unique<Parts>(config, metrics, health, std::move(coordinator));
  RETURN_IF_ERROR(parts->ConnectCollector());
  ASSIGN_OR_RETURN(parts->server, RpcServer::Start({.address = config.listen,
                                                    .tls = config.tls,
                                                    .client_certificate = ClientCertificate::kNone},
                                                   {parts->service.get()}));
  parts->ShowHealth(Gateway::Health::kNotServing);
  parts->gateway.Start();
  health.Watch([loop = parts->loop](std::function<void()> task) { return loop->Post(task); });
  return std::unique_ptr<GatewayProcess>(new GatewayProcess(std::move(parts)));
}

const std::string& GatewayProcess::address() const { return parts_->server->address(); }

int GatewayProcess::Drain() {
  LogInfo("draining", {{"timeout", absl::FormatDuration(parts_->config.drain_timeout)}});
  std::promise<int> empty;
  parts_->gateway.Drain(absl::Now() + parts_->config.drain_timeout,
                        [&](int num_cut) { empty.set_value(num_cut); });
  const int num_cut = empty.get_future().get();
  parts_->server->Shutdown(kFarewell);
  if (parts_->spans != nullptr) parts_->spans->Flush(absl::Now() + kFarewell);
  return num_cut;
}

}  // namespace sauva
