#include "worker/worker.h"

#include <unistd.h>

#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/build_id.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "kernels/cpu_warnings.h"
#include "kernels/cuda_access.h"
#include "kernels/factory.h"
#include "kernels/machine_rates.h"
#include "net/server.h"
#include "worker/coordinator_client.h"
#include "worker/model_store.h"
#include "worker/nccl_setup.h"
#include "worker/peer_client.h"
#include "worker/stage_service.h"
#include "worker/step_runner.h"
#include "worker/worker_loop.h"
#include "worker/worker_metrics.h"

namespace sauva {
namespace {

constexpr const char* kServiceName = "sauva.v1.WorkerService";
constexpr absl::Duration kMetricsInterval = absl::Milliseconds(100);
// After the last stream has ended: for its last message to reach the gateway.
constexpr absl::Duration kFarewell = absl::Seconds(1);
// Until it is measured: a 10 Gbit/s network.
constexpr double kAssumedLinkBytesPerSecond = 1.25e9;

std::string MakeWorkerId() {
  char host[256] = "worker";
  gethostname(host, sizeof(host) - 1);
  std::random_device random;
  return absl::StrCat(host, "-", getpid(), "-", absl::Hex(random(), absl::kZeroPad8));
}

// The address that others reach this worker at.
absl::StatusOr<std::string> AdvertisedAddress(const std::string& advertise,
                                              const std::string& listening) {
  const std::string port = listening.substr(listening.rfind(':'));
  if (advertise.empty()) {
    const std::string host = listening.substr(0, listening.rfind(':'));
    if (host != "0.0.0.0" && host != "[::]" && host != "::") return listening;
    return absl::InvalidArgumentError(
        absl::StrCat("--listen ", host, " takes calls at any address; --advertise must name one"));
  }
  const size_t colon = advertise.rfind(':');
  const bool has_port =
      colon != std::string::npos && advertise.find(']', colon) == std::string::npos;
  if (!has_port) return advertise + port;
  if (advertise.substr(colon) == ":0") return advertise.substr(0, colon) + port;
  return advertise;
}

// A worker without a stage is a spare once the coordinator has had the time to give it one.
class SpareClock {
 public:
  bool IsSpare(bool waits, absl::Time now) {
    if (!waits) {
      since_.reset();
    } else if (!since_) {
      since_ = now;
    }
    return since_ && now - *since_ >= kSpareAfter;
  }

 private:
  static constexpr absl::Duration kSpareAfter = absl::Seconds(10);
  std::optional<absl::Time> since_;
};

int ThreadsOf(const WorkerConfig& config) {
  return config.threads > 0 ? config.threads : UsableCores();
}

// What would fail at the first stage, before this worker says that it can have one.
// Errors: those of cuda_access.h.
absl::Status CheckDeviceMemory(const WorkerConfig& config) {
  if (!IsCuda(config.device)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int index, CudaIndex(config.device));
  return CheckCudaMemory(index, config.memory_bytes);
}

absl::StatusOr<MachineRates> MeasureRates(const WorkerConfig& config) {
  if (IsCuda(config.device)) {
    ASSIGN_OR_RETURN(const int index, CudaIndex(config.device));
    ASSIGN_OR_RETURN(const CudaRates rates, MeasureCudaRates(index));
    return rates.general;
  }
  return MeasureMachineRates(ThreadsOf(config), config.memory_bytes);
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

struct Worker::Parts {
  Parts(const WorkerConfig& config_in, ProcessHealth& health_in);
  ~Parts();

  void Give(EngineWork work);
  void Take(EngineEvent event);
  void Apply(WorkerEffect& effect);
  void UpdateMetrics();
  WorkerHello Hello() const;
  void ShowHealth(RpcServer::Health shown);

  const WorkerConfig config;
  ProcessHealth& health;
  SpareClock spare_clock;
  WorkerHello hello;  // but for the stage
  WorkerMetrics metrics;
  NcclSetup nccl;
  const ModelStore store;
  std::promise<int> drained;
  WorkerLoop loop;
  StepRunner runner;
  PeerClient peers;
  StageService service;
  CoordinatorClient coordinator;
  std::unique_ptr<RpcServer> server;
};

Worker::Parts::Parts(const WorkerConfig& config_in, ProcessHealth& health_in)
    : config(config_in),
      health(health_in),
      metrics(config.memory_bytes),
      nccl{{.functions = std::nullopt,
            .device = config.device,
            // Before the streams of the epoch are given up: a link that does not join is told
            // of as what it is.
            .options = {.join_timeout = config.session.connect_timeout / 2,
                        .step_timeout = config.session.head.step_timeout / 2}}},
      store({.model_dir = config.model_dir,
             .device = config.device,
             .threads = config.threads,
             .memory_bytes = config.memory_bytes,
             .cuda = config.cuda,
             .nccl = &nccl,
             .tls = config.tls}),
      loop(config.session, [this](WorkerEffect& effect) { Apply(effect); }),
      runner([this](const StageAssignment& assignment) { return store.Load(assignment); },
             [this](EngineEvent event) { Take(std::move(event)); }),
      peers(loop, config.tls, nccl, metrics.sent_bytes()),
      service(loop, store, nccl, metrics.received_bytes()),
      coordinator(loop.events(), config.coordinator, config.tls,
                  {.hello = [this] { return Hello(); },
                   .on_event = [this](WorkerEvent event) { loop.Answer(std::move(event)); }}) {}

// Nobody gives effects or events to what is gone: the loop ends first.
Worker::Parts::~Parts() {
  health.Unwatch();
  loop.Stop();
  runner.Stop();
  if (server != nullptr) server->Shutdown(absl::ZeroDuration());
}

void Worker::Parts::Give(EngineWork work) {
  if (runner.Do(std::move(work))) return;
  // More than a session gives a stage that keeps its limits; the epoch cannot go on.
  LogError("the step thread is overloaded");
  loop.Deliver(OpenFailed{loop.session().epoch(),
                          absl::ResourceExhaustedError("too much waits for the step thread")});
}

void Worker::Parts::Take(EngineEvent event) {
  if (const auto* step = std::get_if<StepComputed>(&event)) metrics.Observe(*step);
  std::visit([this](auto& e) { loop.Answer(std::move(e)); }, event);
}

void Worker::Parts::Apply(WorkerEffect& effect) {
  std::visit(Overloaded{
                 [this](LoadLayers& e) { Give(std::move(e)); },
                 [this](AllocateKv& e) { Give(e); },
                 [this](OpenSequence& e) { Give(std::move(e)); },
                 [this](CloseSequence& e) { Give(e); },
                 [this](ComputeStep& e) { Give(std::move(e)); },
                 [this](StageReport& e) { coordinator.Send(e); },
                 [this](StageBroken& e) {
                   LogWarning("pipeline broke", {{"epoch", e.epoch},
                                                 {"suspect", e.suspect_worker_id},
                                                 {"reason", e.reason}});
                   coordinator.Send(e);
                 },
                 [this](Heartbeat& e) { coordinator.Send(e); },
                 [this](OpenOutgoing& e) { peers.Apply(e); },
                 [this](CloseOutgoing& e) { peers.Apply(e); },
                 [this](SendOutgoing& e) { peers.Apply(e); },
                 [this](WorkerDrained& e) { drained.set_value(e.num_cut_streams); },
                 [this](auto& e) { service.Apply(e); },
             },
             effect);
}

void Worker::Parts::UpdateMetrics() {
  const WorkerSession& session = loop.session();
  metrics.Update(session, runner.memory());
  metrics.ShowNcclThreads(nccl.ends.running() + nccl.donors.running() + nccl.receivers.running());
  const bool is_spare = spare_clock.IsSpare(session.joined() && session.idle(), absl::Now());
  health.SetReady(!session.draining() && (session.serving() || is_spare));
  loop.events().PostAt(absl::Now() + kMetricsInterval, [this] { UpdateMetrics(); });
}

WorkerHello Worker::Parts::Hello() const {
  WorkerHello now = hello;
  now.stage = loop.session().Report();
  now.newest_epoch = loop.session().epoch();
  return now;
}

void Worker::Parts::ShowHealth(RpcServer::Health shown) {
  server->SetHealth("", shown);
  server->SetHealth(kServiceName, shown);
}

Worker::Worker(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Worker::~Worker() = default;

const std::string& Worker::address() const { return parts_->server->address(); }
const std::string& Worker::metrics_address() const { return parts_->metrics.registry().address(); }

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(const WorkerConfig& config,
                                                      ProcessHealth& health, MetricsNames names) {
  std::error_code error;
  if (!std::filesystem::is_directory(config.model_dir, error)) {
    return absl::NotFoundError(absl::StrCat("model directory ", config.model_dir, " is not there"));
  }
  std::unique_ptr<Backend> backend;  // fails early; stages get their own
  ASSIGN_OR_RETURN(backend, MakeBackend(config.device, config.threads, 0, config.cuda));
  RETURN_IF_ERROR(CheckDeviceMemory(config));
  for (const std::string& warning : CpuWarnings(config.device, config.threads,
                                                SupportedInstructionSets().back(), UsableCores())) {
    LogWarning("slow arithmetic", {{"reason", warning}});
  }
  ASSIGN_OR_RETURN(const MachineRates rates, MeasureRates(config));
  auto parts = std::make_unique<Parts>(config, health);
  const std::string worker_id = config.worker_id.empty() ? MakeWorkerId() : config.worker_id;
  const auto nccl = OpenNccl(config, worker_id, parts->nccl);  // before anyone can ask for it
  ASSIGN_OR_RETURN(parts->server, RpcServer::Start({.address = config.listen, .tls = config.tls},
                                                   {&parts->service}));
  if (!config.metrics.empty()) {
    RETURN_IF_ERROR(parts->metrics.registry().Serve(config.metrics, names));
  }
  parts->hello = {.worker_id = worker_id,
                  .metrics_address = parts->metrics.registry().address(),
                  .backend_class = backend->backend_class(),
                  .memory_bytes = config.memory_bytes,
                  .read_bytes_per_second = rates.read_bytes_per_second,
                  .operations_per_second = rates.operations_per_second,
                  .link_bytes_per_second = kAssumedLinkBytesPerSecond,
                  .threads = IsCuda(config.device) ? 0 : ThreadsOf(config),
                  .build_id = BuildId()};
  parts->hello.nccl = nccl;
  ASSIGN_OR_RETURN(parts->hello.address,
                   AdvertisedAddress(config.advertise, parts->server->address()));
  parts->ShowHealth(RpcServer::Health::kServing);
  std::promise<absl::Status> joining;
  parts->loop.events().PostAt(absl::InfinitePast(), [&parts, &joining] {
    parts->UpdateMetrics();
    joining.set_value(parts->coordinator.Start());
  });
  RETURN_IF_ERROR(joining.get_future().get());
  health.Watch(
      [raw = parts.get()](std::function<void()> task) { return raw->loop.events().Post(task); });
  return std::unique_ptr<Worker>(new Worker(std::move(parts)));
}

int Worker::Drain() {
  LogInfo("draining", {{"timeout", absl::FormatDuration(parts_->config.drain_timeout)}});
  parts_->ShowHealth(RpcServer::Health::kNotServing);
  parts_->loop.Deliver(ShutDownWorker{parts_->config.drain_timeout});
  const int num_cut = parts_->drained.get_future().get();
  parts_->server->Shutdown(kFarewell);
  return num_cut;
}

}  // namespace sauva
