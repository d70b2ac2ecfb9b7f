#include <CLI/CLI.hpp>
#include <iostream>

#include "base/log.h"
#include "gateway/gateway_flags.h"

// Exit codes: 0 done, 1 failed, 2 wrong usage.
int main(int argc, char** argv) {
  CLI::App app("sauva-gateway: takes requests for text and streams the answers", "sauva-gateway");
  sauva::GatewayFlags flags(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto config = flags.Config();
  absl::Status status = config.status();
  if (status.ok()) status = sauva::ConfigureLog("gateway", flags.log_level());
  if (!status.ok()) {
    std::cerr << status.message() << '\n';
    return 2;
  }
  status = sauva::RunGateway(*config);
  if (status.ok()) return 0;
  std::cerr << "sauva-gateway: " << status.message() << '\n';
  return 1;
}
