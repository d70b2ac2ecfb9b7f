#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "cli/coordinator_client.h"
#include "tests/e2e/stream_client.h"
#include "tests/temporary_directory.h"

// Bad input at every door: a clear error with the right code, and the cluster serves on.
namespace sauva {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct BadRequest {
  std::string name;
  std::function<void(v1::GenerateRequest&)> spoil;
  grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
  std::string message;  // that the error contains
};

std::vector<BadRequest> BadRequests() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto sampling = [](auto set) {
    return [set](v1::GenerateRequest& request) { set(*request.mutable_sampling()); };
  };
  return {
      {"no prompt", [](auto& r) { r.clear_prompt(); }, grpc::StatusCode::INVALID_ARGUMENT,
       "prompt"},
      {"no tokens", [](auto& r) { r.mutable_token_ids(); }, grpc::StatusCode::INVALID_ARGUMENT,
       "prompt"},
      {"unknown token", [](auto& r) { r.mutable_token_ids()->add_ids(1 << 20); },
       grpc::StatusCode::INVALID_ARGUMENT, "1048576"},
      {"negative token", [](auto& r) { r.mutable_token_ids()->add_ids(-1); },
       grpc::StatusCode::INVALID_ARGUMENT, "-1"},
      {"prompt beyond the context",
       [](auto& r) {
         for (int i = 0; i < 100'000; ++i) r.mutable_token_ids()->add_ids(5);
       },
       grpc::StatusCode::INVALID_ARGUMENT, "100000"},
      {"unknown model", [](auto& r) { r.set_model("nothing-like-it"); },
       grpc::StatusCode::NOT_FOUND, "nothing-like-it"},
      {"NaN temperature", sampling([=](auto& s) { s.set_temperature(nan); }),
       grpc::StatusCode::INVALID_ARGUMENT, "temperature"},
      {"negative temperature", sampling([](auto& s) { s.set_temperature(-1); }),
       grpc::StatusCode::INVALID_ARGUMENT, "temperature"},
      {"top_p of 0", sampling([](auto& s) { s.set_top_p(0); }), grpc::StatusCode::INVALID_ARGUMENT,
       "top_p"},
      {"NaN top_p", sampling([=](auto& s) { s.set_top_p(nan); }),
       grpc::StatusCode::INVALID_ARGUMENT, "top_p"},
      {"min_p of 1", sampling([](auto& s) { s.set_min_p(1); }), grpc::StatusCode::INVALID_ARGUMENT,
       "min_p"},
      {"repetition penalty of 0", sampling([](auto& s) { s.set_repetition_penalty(0); }),
       grpc::StatusCode::INVALID_ARGUMENT, "repetition_penalty"},
      {"presence penalty of 3", sampling([](auto& s) { s.set_presence_penalty(3); }),
       grpc::StatusCode::INVALID_ARGUMENT, "presence_penalty"},
      {"65 samples", sampling([](auto& s) { s.set_n(65); }), grpc::StatusCode::INVALID_ARGUMENT,
       "n"},
      {"21 logprobs", sampling([](auto& s) { s.set_logprobs(21); }),
       grpc::StatusCode::INVALID_ARGUMENT, "logprobs"},
      {"17 stop texts", sampling([](auto& s) {
         for (int i = 0; i < 17; ++i) s.add_stop("x");
       }),
       grpc::StatusCode::INVALID_ARGUMENT, "stop"},
      {"text beyond the context", [](auto& r) { r.set_text(std::string(20'000, 'x')); },
       grpc::StatusCode::INVALID_ARGUMENT, "context of model prose holds 1024"},
      {"messages without a chat template",
       [](auto& r) { r.mutable_messages()->add_messages()->set_role("user"); },
       grpc::StatusCode::INVALID_ARGUMENT, "model prose has no chat template"},
      {"negative min_p", sampling([](auto& s) { s.set_min_p(-0.1f); }),
       grpc::StatusCode::INVALID_ARGUMENT, "min_p"},
      {"infinite frequency penalty",
       sampling([=](auto& s) { s.set_frequency_penalty(std::numeric_limits<float>::infinity()); }),
       grpc::StatusCode::INVALID_ARGUMENT, "frequency_penalty"},
      {"NaN bias", sampling([=](auto& s) { s.add_logit_bias()->set_bias(nan); }),
       grpc::StatusCode::INVALID_ARGUMENT, "logit_bias"},
      {"resume without a seed", [](auto& r) { r.add_resume_tokens()->add_token_ids(1); },
       grpc::StatusCode::INVALID_ARGUMENT, "seed"},
  };
}

class RefusalTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto started = TestCluster::Start({"--workers", "1"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }
  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_F(RefusalTest, EachBadRequestIsRefusedByName) {
  for (const BadRequest& bad : BadRequests()) {
    v1::GenerateRequest request = TextRequest(Prompts()[0], 4);
    bad.spoil(request);
    const Outcome outcome = Generate(cluster_->gateway(), request);
    EXPECT_EQ(outcome.status.error_code(), bad.code)
        << bad.name << ": " << outcome.status.error_message();
    EXPECT_THAT(outcome.status.error_message(), HasSubstr(bad.message)) << bad.name;
    EXPECT_TRUE(outcome.tokens.empty()) << bad.name;
  }
  EXPECT_TRUE(Generate(cluster_->gateway(), TextRequest(Prompts()[0], 4)).status.ok());
}

TEST_F(RefusalTest, TheCommandLineFailsWithTheGatewaysMessage) {
  const std::string sauva = std::string(SAUVA_BINARY_DIR) + "/sauva";
  const FinishedProcess result = RunProcess(
      {sauva, "generate", "--gateway", cluster_->gateway(), "--temperature", "-1", "text"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.error, HasSubstr("temperature"));
}

TEST_F(RefusalTest, APortInUseIsToldWithItsAddress) {
  auto second = TestCluster::Start({"--workers", "1", "--grpc", cluster_->gateway()});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr("gateway"), HasSubstr(cluster_->gateway())));
}

TEST_F(RefusalTest, AWorkerWithAnotherDigestServesNothing) {
  // The same model under the same name, with one file changed.
  const TemporaryDirectory directory;
  const std::string copy = directory.path() + "/prose";
  std::filesystem::copy(ModelDirectory(), copy, std::filesystem::copy_options::recursive);
  std::ofstream(copy + "/config.json", std::ios::app) << "\n";

  const std::string bin = SAUVA_BINARY_DIR;
  TestProcess coordinator(
      {bin + "/sauva-coordinator", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
       "--model-dir", std::filesystem::path(ModelDirectory()).parent_path(), "--model", "prose"},
      directory.path() + "/coordinator.log");
  const auto line = coordinator.ReadLine(absl::Now() + kPatience);
  ASSERT_TRUE(line.has_value()) << ReadWholeFile(directory.path() + "/coordinator.log");
  const std::string address = nlohmann::json::parse(*line).at("address");
  TestProcess worker(
      {bin + "/sauva-worker", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--model-dir",
       directory.path(), "--memory", "1GiB", "--threads", "1", "--coordinator", address},
      directory.path() + "/worker.log");
  EXPECT_TRUE(Eventually([&] {
    const auto status = FetchClusterStatus(address, {}, absl::Seconds(10));
    return status.ok() && status->placement_error.find("digest") != std::string::npos;
  })) << ReadWholeFile(directory.path() + "/worker.log");
}

TEST(UsageTest, WrongUsageAndFailureHaveTheirOwnExitCodes) {
  const std::string sauva = std::string(SAUVA_BINARY_DIR) + "/sauva";
  EXPECT_EQ(RunProcess({sauva}).exit_code, 2);
  EXPECT_EQ(RunProcess({sauva, "fly"}).exit_code, 2);
  EXPECT_EQ(RunProcess({sauva, "up"}).exit_code, 2);
  EXPECT_EQ(RunProcess({sauva, "generate", "--n", "0", "text"}).exit_code, 2);
  EXPECT_EQ(RunProcess({sauva, "--help"}).exit_code, 0);

  const FinishedProcess missing = RunProcess({sauva, "up", "--model", "/nowhere/model"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.error, HasSubstr("/nowhere/model"));
  const FinishedProcess cuda =
      RunProcess({sauva, "up", "--model", ModelDirectory(), "--worker", "cuda:0"});
  EXPECT_EQ(cuda.exit_code, 1);
  EXPECT_THAT(cuda.error, HasSubstr("CUDA"));
  const FinishedProcess few =
      RunProcess({sauva, "up", "--model", ModelDirectory(), "--workers", "1", "--stages", "2"});
  EXPECT_EQ(few.exit_code, 2);
  const FinishedProcess nobody =
      RunProcess({sauva, "generate", "--gateway", "127.0.0.1:1", "text"});
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_THAT(nobody.error, HasSubstr("127.0.0.1:1"));
}

TEST(UsageTest, AModelThatDoesNotFitIsRefusedWithTheReason) {
  const auto cluster = TestCluster::Start({"--worker", "cpu:1MiB"});
  ASSERT_FALSE(cluster.ok());
  EXPECT_THAT(std::string(cluster.status().message()), HasSubstr("placed"));
}

}  // namespace
}  // namespace sauva
