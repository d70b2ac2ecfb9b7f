#include "tests/e2e/cluster.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "cli/coordinator_client.h"

namespace sauva {
namespace {

// What http://address/metrics says; empty when nobody answers.
std::string FetchMetrics(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return "";
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &peer.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::string page;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    (void)!write(fd, request.data(), request.size());
    char bytes[16384];
    for (ssize_t got = read(fd, bytes, sizeof bytes); got > 0;
         got = read(fd, bytes, sizeof bytes)) {
      page.append(bytes, static_cast<size_t>(got));
    }
  }
  close(fd);
  return page;
}

}  // namespace

bool Eventually(const std::function<bool()>& done, absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  while (!done()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return true;
}

std::string ModelDirectory() { return std::string(SAUVA_SOURCE_DIR) + "/models/prose"; }

std::optional<double> ScrapeMetric(const std::string& address, const std::string& name,
                                   const std::string& labels) {
  std::istringstream lines(FetchMetrics(address));
  std::optional<double> sum;
  for (std::string line; std::getline(lines, line);) {
    const size_t end = line.find_first_of("{ ");
    if (end == std::string::npos || line.substr(0, end) != name) continue;
    if (!labels.empty() && line.find(labels) == std::string::npos) continue;
    sum = sum.value_or(0) + std::stod(line.substr(line.rfind(' ') + 1));
  }
  return sum;
}

absl::StatusOr<std::unique_ptr<TestCluster>> TestCluster::Start(
    const std::vector<std::string>& flags, const TlsOptions& tls) {
  std::unique_ptr<TestCluster> cluster(new TestCluster);
  cluster->tls_ = tls;
  const std::string& logs = cluster->directory_.path();
  std::vector<std::string> command = {std::string(SAUVA_BINARY_DIR) + "/sauva", "up", "--json",
                                      "--log-dir", logs};
  if (std::ranges::find(flags, "--model") == flags.end()) {
    command.insert(command.end(), {"--model", ModelDirectory()});
  }
  for (const char* port : {"--grpc", "--http", "--coordinator"}) {
    if (std::ranges::find(flags, port) != flags.end()) continue;
    command.insert(command.end(), {port, "127.0.0.1:0"});
  }
  command.insert(command.end(), flags.begin(), flags.end());
  cluster->up_ = std::make_unique<TestProcess>(command, logs + "/up.log");
  const absl::Time deadline = absl::Now() + kPatience;
  const std::optional<std::string> line = cluster->up_->ReadLine(deadline);
  if (!line) {
    const auto code = cluster->up_->Wait(deadline);
    return absl::UnavailableError(absl::StrCat("`sauva up` ended with ", code.value_or(-1), ":\n",
                                               ReadWholeFile(logs + "/up.log")));
  }
  const auto ready = nlohmann::json::parse(*line);
  cluster->gateway_ = ready.at("grpc");
  cluster->http_ = ready.at("http");
  cluster->coordinator_ = ready.at("coordinator");
  for (const auto& process : ready.at("processes")) {
    cluster->processes_.push_back({process.at("role"), process.at("pid"), process.at("metrics")});
  }
  return cluster;
}

TestCluster::~TestCluster() {
  if (testing::Test::HasFailure()) std::cerr << Logs();
  // Children end with `up`, at once; tests of an orderly end call Stop.
  up_->Signal(SIGKILL);
}

absl::StatusOr<ClusterStatus> TestCluster::Status() const {
  return FetchClusterStatus(coordinator_, tls_, absl::Seconds(10));
}

bool TestCluster::AwaitReadyPipelines(int count) const {
  return Eventually([&] {
    const auto status = Status();
    if (!status.ok()) return false;
    int ready = 0;
    for (const PipelineStatus& pipeline : status->pipelines) ready += pipeline.ready ? 1 : 0;
    return ready == count;
  });
}

PipelineStatus TestCluster::Pipeline() const {
  PipelineStatus found;
  EXPECT_TRUE(Eventually([&] {
    const auto status = Status();
    if (!status.ok() || status->pipelines.size() != 1) return false;
    found = status->pipelines.front();
    return found.ready;
  })) << "there is never exactly one ready pipeline";
  return found;
}

bool TestCluster::AwaitIdle() const {
  return Eventually([this] {
    const StageReport head = Pipeline().stages[0].report;
    return head.running_sequences == 0 && head.waiting_sequences == 0 &&
           head.free_kv_blocks == head.num_kv_blocks;
  });
}

pid_t TestCluster::PidOf(const std::string& metrics_address) const {
  for (const Process& process : processes_) {
    if (process.metrics == metrics_address) return process.pid;
  }
  ADD_FAILURE() << "no process with metrics at " << metrics_address;
  return -1;
}

pid_t TestCluster::PidOfRole(const std::string& role) const {
  for (const Process& process : processes_) {
    if (process.role == role) return process.pid;
  }
  ADD_FAILURE() << "no process of role " << role;
  return -1;
}

std::vector<std::string> TestCluster::MetricsOfRole(const std::string& role) const {
  std::vector<std::string> addresses;
  for (const Process& process : processes_) {
    if (process.role == role) addresses.push_back(process.metrics);
  }
  return addresses;
}

void TestCluster::Kill(pid_t pid, int signal) const {
  ASSERT_GT(pid, 0);
  ASSERT_EQ(kill(pid, signal), 0);
}

std::optional<nlohmann::json> TestCluster::AwaitEvent(const std::string& event,
                                                      const std::string& role) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (const auto line = up_->ReadLine(deadline)) {
    const auto json = nlohmann::json::parse(*line);
    if (json.at("event") == "restarted") {
      processes_.push_back({json.at("role"), json.at("pid"), json.at("metrics")});
    } else if (json.at("event") == "died") {
      std::erase_if(processes_, [&](const Process& p) { return p.pid == json.at("pid"); });
    }
    if (json.at("event") == event && json.at("role") == role) return json;
  }
  return std::nullopt;
}

std::optional<int> TestCluster::Stop() {
  // A stopped child cannot end in order.
  for (const Process& process : processes_) kill(process.pid, SIGCONT);
  up_->Signal(SIGTERM);
  return up_->Wait(absl::Now() + kPatience);
}

std::string TestCluster::Logs() const {
  std::string text;
  for (const auto& file : std::filesystem::directory_iterator(directory_.path())) {
    const std::string log = ReadWholeFile(file.path().string());
    constexpr size_t kMostBytes = 6000;
    absl::StrAppend(&text, "==== ", file.path().filename().string(), "\n",
                    log.substr(log.size() > kMostBytes ? log.size() - kMostBytes : 0));
  }
  return text;
}

}  // namespace sauva
