#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "net/channel.h"
#include "net/server.h"
#include "sauva/v1/generation.grpc.pb.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using testing::HasSubstr;

class ListService final : public v1::GenerationService::CallbackService {
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsResponse*) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// Two authorities, each with one certificate for localhost, made by openssl.
class TlsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    folder_ = directory_->path();
    std::ofstream(folder_ / "san.ext") << "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
    for (const std::string name : {"ours", "other"}) {
      const std::string p = (folder_ / name).string();
      const std::string command =
          "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=" + name + "-ca -keyout " +
          p + "-ca.key -out " + p + "-ca.pem 2>/dev/null && openssl req -newkey rsa:2048 -nodes " +
          "-subj /CN=localhost -keyout " + p + ".key -out " + p + ".csr 2>/dev/null && " +
          "openssl x509 -req -days 2 -in " + p + ".csr -CA " + p + "-ca.pem -CAkey " + p +
          "-ca.key -CAcreateserial -extfile " + (folder_ / "san.ext").string() + " -out " + p +
          ".pem 2>/dev/null";
      ASSERT_EQ(std::system(command.c_str()), 0);
    }
  }
  static TlsOptions Options(const std::string& name) {
    const std::string p = (folder_ / name).string();
    return {.certificate = p + ".pem", .key = p + ".key", .ca = p + "-ca.pem"};
  }
  static grpc::Status Call(const std::string& address, const TlsOptions& tls) {
    const auto channel = MakeChannel(address, tls);
    if (!channel.ok()) return {grpc::StatusCode::INTERNAL, channel.status().ToString()};
    auto stub = v1::GenerationService::NewStub(*channel);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    v1::ListModelsResponse response;
    return stub->ListModels(&context, {}, &response);
  }
  static inline std::unique_ptr<TemporaryDirectory> directory_;
  static inline std::filesystem::path folder_;
  ListService service_;
};

TEST_F(TlsTest, ServicesWithCertificatesOfOneAuthorityTalk) {
  const auto server =
      RpcServer::Start({.address = "127.0.0.1:0", .tls = Options("ours")}, {&service_});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(Call((*server)->address(), Options("ours")).ok());
}

TEST_F(TlsTest, AStrangersCertificateNoCertificateAndPlaintextAreRefused) {
  const auto server =
      RpcServer::Start({.address = "127.0.0.1:0", .tls = Options("ours")}, {&service_});
  ASSERT_TRUE(server.ok()) << server.status();
  TlsOptions stranger = Options("other");
  stranger.ca = Options("ours").ca;
  EXPECT_EQ(Call((*server)->address(), stranger).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(Call((*server)->address(), {.ca = Options("ours").ca}).ok());
  EXPECT_FALSE(Call((*server)->address(), {}).ok());
}

TEST_F(TlsTest, AnUntrustedServerIsRefusedByTheClient) {
  const auto server = RpcServer::Start({.address = "127.0.0.1:0",
                                        .tls = Options("other"),
                                        .client_certificate = ClientCertificate::kNone},
                                       {&service_});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_FALSE(Call((*server)->address(), {.ca = Options("ours").ca}).ok());
  EXPECT_TRUE(Call((*server)->address(), {.ca = Options("other").ca}).ok());
}

TEST_F(TlsTest, PlaintextBeyondLoopbackNeedsInsecure) {
  const auto refused = RpcServer::Start({.address = "0.0.0.0:0"}, {&service_});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--insecure"));
  EXPECT_TRUE(
      RpcServer::Start({.address = "0.0.0.0:0", .tls = {.insecure = true}}, {&service_}).ok());
}

TEST_F(TlsTest, HalfAPairAndMissingFilesAreNamed) {
  const auto half = RpcServer::Start(
      {.address = "127.0.0.1:0", .tls = {.certificate = Options("ours").certificate}}, {&service_});
  EXPECT_THAT(std::string(half.status().message()), HasSubstr("--tls-key"));
  TlsOptions missing = Options("ours");
  missing.key = "/nowhere.key";
  const auto gone = RpcServer::Start({.address = "127.0.0.1:0", .tls = missing}, {&service_});
  EXPECT_THAT(std::string(gone.status().message()), HasSubstr("/nowhere.key"));
}

TEST(IsLoopbackTest, KnowsTheLoopbackAddresses) {
  EXPECT_TRUE(IsLoopback("127.0.0.1:80"));
  EXPECT_TRUE(IsLoopback("127.9.9.9:80"));
  EXPECT_TRUE(IsLoopback("[::1]:80"));
  EXPECT_TRUE(IsLoopback("localhost:80"));
  EXPECT_FALSE(IsLoopback("0.0.0.0:80"));
  EXPECT_FALSE(IsLoopback("[::]:80"));
  EXPECT_FALSE(IsLoopback("10.0.0.1:80"));
}

}  // namespace
}  // namespace sauva
