#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "net/service_main.h"
#include "worker/worker_flags.h"

namespace {

class WorkerService final : public sauva::Service {
 public:
  explicit WorkerService(CLI::App& app) : flags_(app) {}

  absl::Status Configure() override {
    ASSIGN_OR_RETURN(config_, flags_.Config());
    return absl::OkStatus();
  }
  absl::StatusOr<Addresses> Start(sauva::ProcessHealth& health,
                                  sauva::MetricsNames names) override {
    ASSIGN_OR_RETURN(worker_, sauva::Worker::Start(config_, health, names));
    return Addresses{worker_->address(), worker_->metrics_address()};
  }
  int Drain() override { return worker_->Drain(); }

 private:
  sauva::WorkerFlags flags_;
  sauva::WorkerConfig config_;
  std::unique_ptr<sauva::Worker> worker_;
};

}  // namespace

int main(int argc, char** argv) {
  return sauva::RunService({.role = "worker", .about = "computes some layers of a model"}, argc,
                           argv,
                           [](CLI::App& app) { return std::make_unique<WorkerService>(app); });
}
