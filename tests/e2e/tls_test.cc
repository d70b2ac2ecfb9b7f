#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/coordinator_client.h"
#include "tests/e2e/stream_client.h"
#include "tests/temporary_directory.h"

// A cluster whose services prove themselves to each other with certificates.
namespace sauva {
namespace {

using ::testing::HasSubstr;

// A certificate authority and one certificate for this machine, made by openssl.
class Authority {
 public:
  Authority() {
    Run({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=test authority", "-keyout", Path("ca.key"), "-out",
         Path("ca.pem")});
    Run({"req",
         "-x509",
         "-newkey",
         "ec",
         "-pkeyopt",
         "ec_paramgen_curve:prime256v1",
         "-nodes",
         "-days",
         "2",
         "-subj",
         "/CN=sauva",
         "-addext",
         "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-CA",
         Path("ca.pem"),
         "-CAkey",
         Path("ca.key"),
         "-keyout",
         Path("service.key"),
         "-out",
         Path("service.pem")});
  }

  TlsOptions Service() const {
    return {.certificate = Path("service.pem"),
            .key = Path("service.key"),
            .ca = Path("ca.pem"),
            .insecure = false};
  }
  TlsOptions Client() const {
    return {.certificate = "", .key = "", .ca = Path("ca.pem"), .insecure = false};
  }
  std::vector<std::string> Flags() const {
    const TlsOptions tls = Service();
    return {"--tls-cert", tls.certificate, "--tls-key", tls.key, "--tls-ca", tls.ca};
  }

 private:
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  static void Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "/usr/bin/openssl");
    const FinishedProcess result = RunProcess(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.error;
  }
  TemporaryDirectory directory_;
};

std::vector<std::string> Joined(std::vector<std::string> flags,
                                const std::vector<std::string>& more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

TEST(TlsTest, AClusterServesOverTlsAndRefusesStrangers) {
  const Authority ours;
  const Authority strangers;
  auto started = TestCluster::Start(Joined({"--stages", "2"}, ours.Flags()), ours.Service());
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;

  const auto generate = [&](const TlsOptions& tls) {
    const auto stub = GatewayStub(cluster.gateway(), tls);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    const auto call = stub->Generate(&context, GreedyRequest(Prompts()[0], 8));
    v1::GenerateResponse response;
    size_t num_tokens = 0;
    while (call->Read(&response)) num_tokens += static_cast<size_t>(response.token_ids_size());
    EXPECT_EQ(call->Finish().ok(), num_tokens == 8);
    return num_tokens;
  };
  EXPECT_EQ(generate(ours.Client()), 8u) << "the public port asks for no client certificate";
  EXPECT_EQ(generate(strangers.Client()), 0u);
  EXPECT_EQ(generate({}), 0u) << "plaintext on a TLS port";

  const absl::Duration limit = absl::Seconds(5);
  EXPECT_TRUE(FetchClusterStatus(cluster.coordinator(), ours.Service(), limit).ok());
  EXPECT_FALSE(FetchClusterStatus(cluster.coordinator(), ours.Client(), limit).ok())
      << "the control plane asks for a client certificate";
  TlsOptions forged = strangers.Service();
  forged.ca = ours.Client().ca;
  EXPECT_FALSE(FetchClusterStatus(cluster.coordinator(), forged, limit).ok());
}

TEST(TlsTest, AWorkerWithACertificateOfAnotherAuthorityDoesNotJoin) {
  const Authority ours;
  const Authority strangers;
  auto started = TestCluster::Start(Joined({"--workers", "1"}, ours.Flags()), ours.Service());
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const std::string log = cluster.log_directory() + "/stranger.log";
  TestProcess stranger(Joined({std::string(SAUVA_BINARY_DIR) + "/sauva-worker", "--listen",
                               "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--model-dir",
                               ModelDirectory().substr(0, ModelDirectory().rfind('/')), "--memory",
                               "1GiB", "--threads", "1", "--coordinator", cluster.coordinator()},
                              strangers.Flags()),
                       log);
  ASSERT_TRUE(stranger.ReadLine(absl::Now() + kPatience).has_value()) << ReadWholeFile(log);
  EXPECT_TRUE(Eventually([&] {
    return ReadWholeFile(log).find("coordinator") != std::string::npos;
  })) << "it says nothing of the coordinator it cannot reach";
  EXPECT_EQ(cluster.Status()->workers.size(), 1u);
}

TEST(TlsTest, PlaintextBeyondLoopbackNeedsToBeAskedFor) {
  const auto cluster = TestCluster::Start({"--workers", "1", "--grpc", "0.0.0.0:0"});
  ASSERT_FALSE(cluster.ok());
  EXPECT_THAT(std::string(cluster.status().message()), HasSubstr("insecure"));
}

}  // namespace
}  // namespace sauva
