#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <regex>

#include "absl/strings/str_cat.h"
#include "tests/e2e/extra_gateway.h"
#include "tests/e2e/stream_client.h"

// The example clients, as people run them, in front of a real cluster. Both take the same
// flags and must behave the same.
namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kNumTokens = 400;
constexpr size_t kPrintedBytes = 100;  // of some 1,500; then the gateway dies
constexpr const char* kPrompt = "The prince looked at her and";

struct Example {
  const char* name;
  std::vector<std::string> command;
};

void PrintTo(const Example& example, std::ostream* out) { *out << example.name; }

std::vector<Example> Examples() {
  return {{"Cpp", {SAUVA_BINARY_DIR "/sauva-example-client"}},
          // The system's own Python: the one that scripts/packages.txt gives grpcio to.
          {"Python", {"/usr/bin/python3", "-B", SAUVA_SOURCE_DIR "/examples/python/client.py"}}};
}

// The number that `pattern`'s group finds in `text`.
uint64_t NumberIn(const std::string& text, const std::string& pattern) {
  std::smatch found;
  EXPECT_TRUE(std::regex_search(text, found, std::regex(pattern))) << pattern << " in:\n" << text;
  return found.empty() ? 0 : std::stoull(found[1]);
}

class ExampleClientTest : public testing::TestWithParam<Example> {
 protected:
  static void SetUpTestSuite() {
    auto started = TestCluster::Start({"--stages", "2", "--no-restart"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  static std::vector<std::string> Command(const std::vector<std::string>& flags) {
    std::vector<std::string> command = GetParam().command;
    command.insert(command.end(), flags.begin(), flags.end());
    return command;
  }
  static std::vector<std::string> Ask(std::vector<std::string> flags, uint32_t max_tokens) {
    flags.insert(flags.end(), {"--prompt", kPrompt, "--max-tokens", absl::StrCat(max_tokens)});
    return Command(flags);
  }
  // What a client that nothing happens to gets.
  static Outcome Undisturbed(uint64_t seed, uint32_t max_tokens) {
    v1::GenerateRequest request = SampledRequest(kPrompt, max_tokens, seed);
    request.mutable_sampling()->set_ignore_eos(false);
    return Generate(cluster_->gateway(), request);
  }
  static double DeliveredBySurvivor() {
    return ScrapeMetric(cluster_->http(), "sauva_generation_tokens_total").value_or(0);
  }

  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_P(ExampleClientTest, PrintsTheTextOfTheStream) {
  const Outcome expected = Undisturbed(7, 40);
  const FinishedProcess client =
      RunProcess(Ask({"--gateway", cluster_->gateway(), "--seed", "7"}, 40));
  EXPECT_EQ(client.exit_code, 0) << client.error;
  EXPECT_EQ(client.out, expected.text + "\n");
  EXPECT_THAT(client.error, HasSubstr("FINISH_REASON_LENGTH after 40 tokens, seed 7"));
}

// The gateway dies by kill -9 once the client has printed some text. The client has no seed
// of its own: it goes on with the one that the dead gateway drew and told it.
TEST_P(ExampleClientTest, GoesOnAtTheOtherGatewayWhenOneIsKilledInMidStream) {
  const ExtraGateway victim(*cluster_);
  const double delivered_before = DeliveredBySurvivor();
  const std::string errors =
      absl::StrCat(cluster_->log_directory(), "/", GetParam().name, "-client.log");
  TestProcess client(
      Ask({"--gateway", victim.address(), "--gateway", cluster_->gateway()}, kNumTokens), errors);
  const absl::Time deadline = absl::Now() + kPatience;
  ASSERT_TRUE(client.AwaitOutput(kPrintedBytes, deadline)) << ReadWholeFile(errors);
  victim.Kill();
  const std::string printed = client.ReadRest(deadline);
  EXPECT_EQ(client.Wait(deadline), 0);

  const std::string told = ReadWholeFile(errors);
  const uint64_t moved_after = NumberIn(told, "going on after ([0-9]+) tokens\\]");
  EXPECT_THAT(told, HasSubstr(victim.address()));
  EXPECT_GT(moved_after, 5u) << "the first gateway had delivered next to nothing";
  EXPECT_LT(moved_after, kNumTokens) << "the gateway died too late";
  EXPECT_EQ(NumberIn(told, "after ([0-9]+) tokens, seed"), kNumTokens);
  EXPECT_EQ(DeliveredBySurvivor() - delivered_before, kNumTokens - moved_after)
      << "the other gateway sent something that the client had already";

  const Outcome expected = Undisturbed(NumberIn(told, "tokens, seed ([0-9]+)"), kNumTokens);
  EXPECT_EQ(expected.tokens.size(), kNumTokens);
  EXPECT_EQ(printed, expected.text + "\n");
  std::cout << "moved after " << moved_after << " of " << kNumTokens << " tokens\n";
}

TEST_P(ExampleClientTest, CancelsAfterAsManyTokensAsAskedAndFreesTheBlocks) {
  const FinishedProcess client =
      RunProcess(Ask({"--gateway", cluster_->gateway(), "--cancel-after", "3"}, kNumTokens));
  EXPECT_EQ(client.exit_code, 0) << client.error;
  EXPECT_THAT(client.error, HasSubstr("cancelled after 3 tokens"));
  EXPECT_TRUE(cluster_->AwaitIdle());
}

// No machine makes a thousand tokens of this model in so short a time.
TEST_P(ExampleClientTest, StopsAtItsDeadlineAndFreesTheBlocks) {
  const FinishedProcess client =
      RunProcess(Ask({"--gateway", cluster_->gateway(), "--deadline-ms", "100"}, 1000));
  EXPECT_EQ(client.exit_code, 1) << client.error;
  EXPECT_THAT(client.error, HasSubstr("failed with code 4"));
  EXPECT_TRUE(cluster_->AwaitIdle());
}

TEST_P(ExampleClientTest, GivesUpWhenNoGatewayAnswers) {
  std::string gone;
  {
    const ExtraGateway gateway(*cluster_);
    gone = gateway.address();
  }
  const FinishedProcess client = RunProcess(Ask({"--gateway", gone, "--gateway", gone}, 8));
  EXPECT_EQ(client.exit_code, 1);
  EXPECT_THAT(client.error, HasSubstr("failed with code 14"));
}

TEST_P(ExampleClientTest, ExitsWithTwoForWrongUsage) {
  EXPECT_EQ(RunProcess(Command({"--no-such-flag"})).exit_code, 2);
}

INSTANTIATE_TEST_SUITE_P(Examples, ExampleClientTest, testing::ValuesIn(Examples()),
                         [](const auto& example) { return std::string(example.param.name); });

}  // namespace
}  // namespace sauva
