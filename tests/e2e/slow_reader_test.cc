#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/e2e/extra_gateway.h"
#include "tests/e2e/stream_client.h"

// Clients that ask and do not read: the gateway keeps what it may, then ends them, and
// nobody else notices.
namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kNumTokens = 900;
constexpr size_t kNumOthers = 7;

// A client with an HTTP/2 window of a few responses that reads nothing until it is told to.
class SilentReader {
 public:
  SilentReader(const std::string& gateway, v1::GenerateRequest request) {
    // With log-probabilities a response takes about a kilobyte of the gateway's memory.
    request.mutable_sampling()->set_logprobs(20);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1 << 10);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::GenerationService::NewStub(
        grpc::CreateCustomChannel(gateway, grpc::InsecureChannelCredentials(), arguments));
    context_.set_deadline(absl::ToChronoTime(absl::Now() + 2 * kPatience));
    call_ = stub_->Generate(&context_, request);
  }
  ~SilentReader() { context_.TryCancel(); }

  // Wakes up and reads to the end.
  Outcome ReadAll() {
    Outcome outcome;
    v1::GenerateResponse response;
    while (call_->Read(&response)) {
      outcome.tokens.insert(outcome.tokens.end(), response.token_ids().begin(),
                            response.token_ids().end());
    }
    outcome.status = call_->Finish();
    return outcome;
  }

 private:
  std::unique_ptr<v1::GenerationService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> call_;
};

std::vector<v1::GenerateRequest> OtherRequests() {
  std::vector<v1::GenerateRequest> requests;
  for (size_t i = 0; i < kNumOthers; ++i) {
    requests.push_back(SampledRequest(Prompts()[i + 1], 100, i));
  }
  return requests;
}

std::vector<std::vector<int32_t>> TokensOf(const std::vector<Outcome>& outcomes) {
  std::vector<std::vector<int32_t>> tokens;
  for (const Outcome& outcome : outcomes) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    tokens.push_back(outcome.tokens);
  }
  return tokens;
}

class SlowReaderTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto started = TestCluster::Start({"--stages", "2"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override {
    ASSERT_NE(cluster_, nullptr);
    undisturbed_ = TokensOf(GenerateAll(cluster_->gateway(), OtherRequests()));
  }

  std::vector<std::vector<int32_t>> undisturbed_;
  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_F(SlowReaderTest, IsCutOffAtTheLimitAndCanGoOnLaterWhileOthersAreUndisturbed) {
  constexpr double kLimitBytes = 64 << 10;
  const ExtraGateway gateway(*cluster_, {"--max-unread", "64KiB"});
  const v1::GenerateRequest request = SampledRequest(Prompts()[0], kNumTokens, 4);
  const Outcome whole = Generate(gateway.address(), request);
  ASSERT_EQ(whole.tokens.size(), kNumTokens);
  const uint64_t resident_before = ResidentBytes(gateway.pid());

  SilentReader silent(gateway.address(), request);
  EXPECT_EQ(TokensOf(GenerateAll(gateway.address(), OtherRequests())), undisturbed_);
  ASSERT_TRUE(
      Eventually([&] { return ScrapeMetric(gateway.metrics(), "sauva_slow_readers_total") == 1; }));
  EXPECT_TRUE(cluster_->AwaitIdle()) << "a silent reader's sequence runs on";
  const double unread = ScrapeMetric(gateway.metrics(), "sauva_unread_bytes").value_or(0);
  EXPECT_GT(unread, kLimitBytes * 0.9) << "it was cut off before its room was full";
  EXPECT_LE(unread, kLimitBytes);
  EXPECT_LT(ResidentBytes(gateway.pid()), resident_before + (uint64_t{16} << 20));

  const Outcome got = silent.ReadAll();
  EXPECT_EQ(got.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(got.status.error_message(), HasSubstr("reads too slowly"));
  EXPECT_TRUE(
      Eventually([&] { return ScrapeMetric(gateway.metrics(), "sauva_unread_bytes") == 0; }));

  ASSERT_GT(got.tokens.size(), 0u);
  ASSERT_LT(got.tokens.size(), kNumTokens);
  v1::GenerateRequest rest = request;
  *rest.add_resume_tokens()->mutable_token_ids() = {got.tokens.begin(), got.tokens.end()};
  std::vector<int32_t> all = got.tokens;
  const Outcome resumed = Generate(gateway.address(), rest);
  all.insert(all.end(), resumed.tokens.begin(), resumed.tokens.end());
  EXPECT_EQ(all, whole.tokens) << "a token is missing or came twice";
  std::cout << "cut off after " << got.tokens.size() << " of " << kNumTokens << " tokens with "
            << unread << " bytes unread\n";
}

TEST_F(SlowReaderTest, ManyOfThemShareABoundAndLeaveRoomForOthers) {
  constexpr size_t kNumSilent = 12;
  constexpr double kLimitBytes = 256 << 10;
  const ExtraGateway gateway(*cluster_, {"--max-unread-total", "256KiB"});
  std::vector<std::unique_ptr<SilentReader>> silent;
  for (size_t i = 0; i < kNumSilent; ++i) {
    silent.push_back(std::make_unique<SilentReader>(
        gateway.address(), SampledRequest(Prompts()[i % 8], kNumTokens, i)));
  }
  ASSERT_TRUE(Eventually(
      [&] { return ScrapeMetric(gateway.metrics(), "sauva_slow_readers_total") == kNumSilent; }));
  EXPECT_TRUE(cluster_->AwaitIdle());
  const double unread = ScrapeMetric(gateway.metrics(), "sauva_unread_bytes").value_or(0);
  EXPECT_GT(unread, kLimitBytes * 0.75);
  EXPECT_LE(unread, kLimitBytes);
  EXPECT_EQ(TokensOf(GenerateAll(gateway.address(), OtherRequests())), undisturbed_);
  silent.clear();
  EXPECT_TRUE(Eventually([&] {
    return ScrapeMetric(gateway.metrics(), "sauva_unread_bytes") == 0;
  })) << "clients that leave give back what waited for them";
}

}  // namespace
}  // namespace sauva
