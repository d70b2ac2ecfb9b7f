#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "coordinator/coordinator_flags.h"
#include "net/service_main.h"

namespace {

class CoordinatorService final : public sauva::Service {
 public:
  explicit CoordinatorService(CLI::App& app) : flags_(app) {}

  absl::Status Configure() override {
    ASSIGN_OR_RETURN(config_, flags_.Config());
    return absl::OkStatus();
  }
  absl::StatusOr<Addresses> Start(sauva::ProcessHealth& health,
                                  sauva::MetricsNames names) override {
    ASSIGN_OR_RETURN(process_, sauva::CoordinatorProcess::Start(config_, health, names));
    return Addresses{process_->address(), process_->metrics_address()};
  }
  int Drain() override {
    process_->ShutDown();  // holds no streams of clients; who waits asks again
    return 0;
  }

 private:
  sauva::CoordinatorFlags flags_;
  sauva::CoordinatorProcessConfig config_;
  std::unique_ptr<sauva::CoordinatorProcess> process_;
};

}  // namespace

int main(int argc, char** argv) {
  return sauva::RunService(
      {.role = "coordinator",
       .about = "decides which worker serves which layers, and routes requests"},
      argc, argv, [](CLI::App& app) { return std::make_unique<CoordinatorService>(app); });
}
