#include "cli/up_command.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cli/coordinator_client.h"
#include "cli/status_view.h"

namespace sauva {
namespace {

constexpr absl::Duration kListenTimeout = absl::Seconds(60);
constexpr absl::Duration kStatusTimeout = absl::Seconds(2);
// A placement may fail while workers still join; so long after they listen it is final.
constexpr absl::Duration kPlacementPatience = absl::Seconds(10);
constexpr absl::Duration kGatewayGrace = absl::Seconds(30);
constexpr absl::Duration kServiceGrace = absl::Seconds(10);

// One cluster from start to end.
class Cluster {
 public:
  Cluster(const UpOptions& options, std::ostream& out, std::ostream& notes)
      : options_(options),
        out_(out),
        notes_(notes),
        supervisor_({.restart = !options.no_restart,
                     .log_directory = options.log_directory,
                     .on_event = [this](const ChildEvent& event) { Tell(event); }}) {}

  absl::Status Start(LaunchPlan plan);
  absl::Status Serve();
  void Stop();

 private:
  absl::Status AwaitReady();
  bool IsReady(const ClusterStatus& status) const;
  void TellReady(const ClusterStatus& status);
  void Tell(const ChildEvent& event);
  Announcement ListeningAs(const std::string& role) const;

  const UpOptions& options_;
  std::ostream& out_;
  std::ostream& notes_;
  Supervisor supervisor_;
  std::string coordinator_;  // where it listens
};

Announcement Cluster::ListeningAs(const std::string& role) const {
  for (const Supervisor::Running& child : supervisor_.running()) {
    if (child.role == role) return child.listening;
  }
  return {};
}

absl::Status Cluster::Start(LaunchPlan plan) {
  RETURN_IF_ERROR(supervisor_.Start(std::move(plan.coordinator)).status());
  RETURN_IF_ERROR(supervisor_.AwaitListening("coordinator", kListenTimeout));
  coordinator_ = ListeningAs("coordinator").address;
  plan.workers.push_back(std::move(plan.gateway));
  for (ServiceCommand& service : plan.workers) {
    auto& arguments = service.command.arguments;
    arguments.insert(arguments.end(), {"--coordinator", coordinator_});
    RETURN_IF_ERROR(supervisor_.Start(std::move(service)).status());
  }
  RETURN_IF_ERROR(supervisor_.AwaitListening("worker", kListenTimeout));
  RETURN_IF_ERROR(supervisor_.AwaitListening("gateway", kListenTimeout));
  return AwaitReady();
}

bool Cluster::IsReady(const ClusterStatus& status) const {
  int ready = 0;
  for (const PipelineStatus& pipeline : status.pipelines) ready += pipeline.ready ? 1 : 0;
  return ready >= options_.replicas;
}

absl::Status Cluster::AwaitReady() {
  absl::Status failure;
  ClusterStatus cluster;
  absl::Time placement_deadline = absl::InfiniteFuture();
  RETURN_IF_ERROR(supervisor_.RunUntil([&] {
    if (auto dead = supervisor_.FirstDead()) {
      failure = absl::UnavailableError(*dead);
      return true;
    }
    auto status = FetchClusterStatus(coordinator_, options_.tls, kStatusTimeout);
    if (!status.ok()) {
      // The coordinator listens, so only an answer of its own is worth ending for.
      failure = status.status();
      return failure.code() != absl::StatusCode::kUnavailable &&
             failure.code() != absl::StatusCode::kDeadlineExceeded;
    }
    failure = absl::OkStatus();
    cluster = *std::move(status);
    if (cluster.placement_error.empty()) {
      placement_deadline = absl::InfiniteFuture();
    } else {
      placement_deadline = std::min(placement_deadline, absl::Now() + kPlacementPatience);
    }
    if (absl::Now() > placement_deadline) {
      failure = absl::ResourceExhaustedError(
          absl::StrCat("the model cannot be placed: ", cluster.placement_error));
      return true;
    }
    return IsReady(cluster);
  }));
  RETURN_IF_ERROR(failure);
  TellReady(cluster);
  supervisor_.EnterService();
  return absl::OkStatus();
}

void Cluster::TellReady(const ClusterStatus& status) {
  const std::vector<Supervisor::Running> running = supervisor_.running();
  const Announcement gateway = ListeningAs("gateway");
  if (options_.json) {
    nlohmann::ordered_json processes = nlohmann::ordered_json::array();
    for (const Supervisor::Running& child : running) {
      processes.push_back(
          {{"role", child.role}, {"pid", child.pid}, {"metrics", child.listening.metrics}});
    }
    const nlohmann::ordered_json ready = {{"event", "ready"},
                                          {"grpc", gateway.address},
                                          {"http", gateway.metrics},
                                          {"coordinator", coordinator_},
                                          {"processes", std::move(processes)}};
    out_ << ready.dump() << std::endl;
    return;
  }
  out_ << StatusTable(status);
  for (const Supervisor::Running& child : running) {
    out_ << child.name << ": pid " << child.pid << ", gRPC " << child.listening.address
         << ", metrics http://" << child.listening.metrics << "/metrics\n";
  }
  out_ << "ready: gRPC " << gateway.address << ", coordinator " << coordinator_ << std::endl;
}

void Cluster::Tell(const ChildEvent& event) {
  const bool died = event.kind == ChildEvent::Kind::kDied;
  if (options_.json) {
    const nlohmann::ordered_json json = {{"event", died ? "died" : "restarted"},
                                         {"role", event.role},
                                         {"pid", event.pid},
                                         {"detail", event.detail},
                                         {"metrics", event.listening.metrics}};
    out_ << json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
    return;
  }
  notes_ << event.name << " (pid " << event.pid << ") "
         << (died
                 ? absl::StrCat("died: ", event.detail)
                 : absl::StrCat("runs again, metrics http://", event.listening.metrics, "/metrics"))
         << std::endl;
}

absl::Status Cluster::Serve() {
  const absl::Status ended = supervisor_.RunUntil([] { return false; });
  // A signal is how a cluster is meant to end.
  return ended.code() == absl::StatusCode::kCancelled ? absl::OkStatus() : ended;
}

void Cluster::Stop() {
  if (!options_.json) notes_ << "draining" << std::endl;
  supervisor_.Stop("gateway", kGatewayGrace);
  supervisor_.Stop("worker", kServiceGrace);
  supervisor_.Stop("coordinator", kServiceGrace);
}

}  // namespace

absl::Status RunUp(const UpOptions& options, LaunchPlan plan, std::ostream& out,
                   std::ostream& notes) {
  if (!options.log_directory.empty()) {
    std::error_code error;
    std::filesystem::create_directories(options.log_directory, error);
    if (error) {
      return absl::InvalidArgumentError(
          absl::StrCat("--log-dir ", options.log_directory, ": ", error.message()));
    }
  }
  Cluster cluster(options, out, notes);
  absl::Status status = cluster.Start(std::move(plan));
  if (status.ok()) status = cluster.Serve();
  cluster.Stop();
  return status;
}

}  // namespace sauva
