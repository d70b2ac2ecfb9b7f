#include "tests/gateway/gateway_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "base/check.h"
#include "tests/net/ask_health.h"

namespace sauva::testing {
namespace {

// Sum over the series of `name`, which may have labels behind it that a series must have too.
double ValueIn(const std::string& page, const std::string& name) {
  const size_t brace = std::min(name.find('{'), name.size());
  const std::string labels =
      brace < name.size() ? name.substr(brace + 1, name.size() - brace - 2) : std::string();
  std::istringstream lines(page);
  double sum = 0;
  for (std::string line; std::getline(lines, line);) {
    const size_t end = line.find_first_of("{ ");
    if (end == std::string::npos || line.substr(0, end) != name.substr(0, brace)) continue;
    if (line.find(labels) == std::string::npos) continue;
    sum += std::stod(line.substr(line.rfind(' ') + 1));
  }
  return sum;
}

}  // namespace

Metrics& GatewayTest::ProgramMetrics() {
  static Metrics& metrics = [&]() -> Metrics& {
    static Metrics served;
    Check(served.Serve("127.0.0.1:0").ok(), "a free port is found");
    return served;
  }();
  return metrics;
}

// One HTTP GET of /metrics.
std::string GatewayTest::Scrape() {
  const std::string& address = ProgramMetrics().address();
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string body;
  if (connect(socket_fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    (void)!write(socket_fd, request.data(), request.size());
    char buffer[4096];
    for (ssize_t n = 0; (n = read(socket_fd, buffer, sizeof(buffer))) > 0;) {
      body.append(buffer, static_cast<size_t>(n));
    }
  }
  close(socket_fd);
  return body;
}

double GatewayTest::Metric(const std::string& name) const {
  return ValueIn(Scrape(), name) - ValueIn(metrics_before_, name);
}

bool GatewayTest::IsServing(const std::string& service) const {
  return AskHealth(channel, service) == AskedHealth::kServing;
}

}  // namespace sauva::testing
