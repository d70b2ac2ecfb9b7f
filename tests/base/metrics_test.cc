#include "base/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace sauva {
namespace {

using testing::HasSubstr;

std::string Get(const std::string& address, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    out.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return out;
}

TEST(MetricsTest, AreServedAtAPortOfTheSystemsChoice) {
  Metrics metrics;
  metrics.Counter("sauva_resumes_total", "Streams resumed.").Increment(3);
  metrics.Gauge("sauva_memory_bytes", "Bytes.", {{"share", "kv"}}).Set(12);
  metrics.Histogram("sauva_step_seconds", "Steps.", kStepTimeBuckets).Observe(0.003);
  ASSERT_TRUE(metrics.Serve("127.0.0.1:0").ok());
  const std::string page = Get(metrics.address(), "/metrics");
  EXPECT_THAT(page, HasSubstr("sauva_resumes_total 3"));
  EXPECT_THAT(page, HasSubstr("sauva_memory_bytes{share=\"kv\"} 12"));
  EXPECT_THAT(page, HasSubstr("sauva_step_seconds_bucket{le=\"0.005\"} 1"));
}

TEST(MetricsTest, TheSameNameAndLabelsAreTheSameMetric) {
  Metrics metrics;
  EXPECT_EQ(&metrics.Counter("a_total", "A."), &metrics.Counter("a_total", "A."));
  EXPECT_NE(&metrics.Counter("a_total", "A.", {{"x", "1"}}), &metrics.Counter("a_total", "A."));
}

TEST(MetricsTest, ATakenPortIsNamed) {
  Metrics first;
  ASSERT_TRUE(first.Serve("127.0.0.1:0").ok());
  Metrics second;
  const absl::Status status = second.Serve(first.address());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(first.address()));
}

}  // namespace
}  // namespace sauva
