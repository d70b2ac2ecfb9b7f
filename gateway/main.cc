#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "gateway/gateway_flags.h"
#include "net/service_main.h"

namespace {

class GatewayService final : public sauva::Service {
 public:
  explicit GatewayService(CLI::App& app) : flags_(app) {}

  absl::Status Configure() override {
    ASSIGN_OR_RETURN(config_, flags_.Config());
    return absl::OkStatus();
  }
  absl::StatusOr<Addresses> Start(sauva::ProcessHealth& health,
                                  sauva::MetricsNames names) override {
    RETURN_IF_ERROR(metrics_.Serve(config_.metrics, names));
    ASSIGN_OR_RETURN(process_, sauva::GatewayProcess::Start(config_, metrics_, health));
    return Addresses{process_->address(), metrics_.address()};
  }
  int Drain() override { return process_->Drain(); }

 private:
  sauva::GatewayFlags flags_;
  sauva::GatewayConfig config_;
  sauva::Metrics metrics_;
  std::unique_ptr<sauva::GatewayProcess> process_;
};

}  // namespace

int main(int argc, char** argv) {
  return sauva::RunService(
      {.role = "gateway", .about = "takes requests for text and streams the answers"}, argc, argv,
      [](CLI::App& app) { return std::make_unique<GatewayService>(app); });
}
