#include "coordinator/coordinator_process.h"

#include <grpcpp/impl/codegen/service_type.h>

#include <utility>

#include "absl/time/clock.h"
#include "base/build_id.h"
#include "base/metrics.h"
#include "base/status_macros.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/runtime.h"
#include "net/server.h"

namespace sauva {
namespace {

constexpr absl::Duration kFarewell = absl::Seconds(1);

CoordinatorConfig MachineConfig(const CoordinatorProcessConfig& config) {
  CoordinatorConfig machine = config.coordinator;
  machine.start_time_ms = static_cast<uint64_t>(absl::ToUnixMillis(absl::Now()));
  machine.build_id = BuildId();
  machine.weight_format = config.format.weight_format;
  machine.kv_type = config.format.kv_type;
  machine.max_step_tokens = config.format.max_step_tokens;
  machine.max_sequences = config.format.max_sequences;
  return machine;
}

}  // namespace

struct CoordinatorProcess::Parts {
  Parts(const CoordinatorProcessConfig& config, ProcessHealth& health_in,
        std::unique_ptr<ModelCatalog> catalog_in)
      : health(health_in),
        catalog(std::move(catalog_in)),
        runtime(MachineConfig(config), metrics),
        service(MakeCoordinatorService(runtime, *catalog)) {}
  ~Parts() {
    health.Unwatch();
    if (server != nullptr) server->Shutdown(absl::ZeroDuration());
  }

  ProcessHealth& health;
  Metrics metrics;
  std::unique_ptr<ModelCatalog> catalog;
  CoordinatorRuntime runtime;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<RpcServer> server;
  bool shut_down = false;
};

CoordinatorProcess::CoordinatorProcess(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
CoordinatorProcess::~CoordinatorProcess() { ShutDown(); }

absl::StatusOr<std::unique_ptr<CoordinatorProcess>> CoordinatorProcess::Start(
    const CoordinatorProcessConfig& config, ProcessHealth& health, MetricsNames names) {
  std::unique_ptr<ModelCatalog> catalog;
  ASSIGN_OR_RETURN(catalog, ModelCatalog::Create(config.model_dir, config.format));
  auto parts = std::make_unique<Parts>(config, health, std::move(catalog));
  if (!config.model.empty()) {
    ASSIGN_OR_RETURN(const CatalogModel* model, parts->catalog->Open(config.model));
    parts->runtime.Load(model->description, config.replicas, [](const auto&) {});
  }
  if (!config.metrics.empty()) RETURN_IF_ERROR(parts->metrics.Serve(config.metrics, names));
  ASSIGN_OR_RETURN(parts->server, RpcServer::Start({.address = config.listen, .tls = config.tls},
                                                   {parts->service.get()}));
  parts->server->SetHealth("", RpcServer::Health::kServing);
  parts->server->SetHealth(kCoordinatorServiceName, RpcServer::Health::kServing);
  health.SetReady(true);
  health.Watch([raw = parts.get()](std::function<void()> task) { return raw->runtime.Post(task); });
  return std::unique_ptr<CoordinatorProcess>(new CoordinatorProcess(std::move(parts)));
}

const std::string& CoordinatorProcess::address() const { return parts_->server->address(); }
const std::string& CoordinatorProcess::metrics_address() const { return parts_->metrics.address(); }

void CoordinatorProcess::ShutDown() {
  if (std::exchange(parts_->shut_down, true)) return;
  parts_->server->SetHealth("", RpcServer::Health::kNotServing);
  parts_->server->SetHealth(kCoordinatorServiceName, RpcServer::Health::kNotServing);
  parts_->runtime.ShutDown();
  parts_->server->Shutdown(kFarewell);
}

}  // namespace sauva
