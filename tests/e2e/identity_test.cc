#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/factory.h"
#include "tests/e2e/stream_client.h"

// The tokens of a request depend on model, prompt, parameters and seed only: not on how the
// model is cut, who else is in the batch, threads or instruction set.
namespace sauva {
namespace {

constexpr uint32_t kNumTokens = 64;

// Ten greedy requests, then ten sampled ones.
std::vector<v1::GenerateRequest> Requests() {
  std::vector<v1::GenerateRequest> requests;
  for (const std::string& prompt : Prompts()) {
    requests.push_back(GreedyRequest(prompt, kNumTokens));
  }
  for (size_t i = 0; i < Prompts().size(); ++i) {
    requests.push_back(SampledRequest(Prompts()[i], kNumTokens, 1000 + i));
  }
  return requests;
}

std::vector<std::vector<int32_t>> TokensOf(const std::vector<Outcome>& outcomes) {
  std::vector<std::vector<int32_t>> tokens;
  for (const Outcome& outcome : outcomes) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.tokens.size(), kNumTokens);
    tokens.push_back(outcome.tokens);
  }
  return tokens;
}

std::vector<Outcome> OneAfterAnother(const std::string& gateway) {
  std::vector<Outcome> outcomes;
  for (const v1::GenerateRequest& request : Requests()) {
    outcomes.push_back(Generate(gateway, request));
  }
  return outcomes;
}

// What one stage with one thread gives when each request is alone; made once.
const std::vector<std::vector<int32_t>>& Alone() {
  static const auto tokens = [] {
    auto cluster = TestCluster::Start({"--workers", "1", "--threads", "1"});
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    return cluster.ok() ? TokensOf(OneAfterAnother((*cluster)->gateway()))
                        : std::vector<std::vector<int32_t>>();
  }();
  return tokens;
}

void ExpectStagesThatWorked(const TestCluster& cluster, int num_stages) {
  const PipelineStatus before = cluster.Pipeline();
  ASSERT_EQ(static_cast<int>(before.stages.size()), num_stages);
  int next_layer = 0;
  std::set<std::string> workers;
  for (const StageStatus& stage : before.stages) {
    EXPECT_EQ(stage.endpoint.layers.first, next_layer) << "ranges follow each other";
    EXPECT_GT(stage.endpoint.layers.size(), 0);
    next_layer = stage.endpoint.layers.last;
    workers.insert(stage.endpoint.worker_id);
  }
  EXPECT_EQ(static_cast<int>(workers.size()), num_stages);
  EXPECT_TRUE(Eventually([&] {
    const PipelineStatus now = cluster.Pipeline();
    return std::ranges::all_of(
        now.stages, [](const StageStatus& stage) { return stage.report.steps_done > 0; });
  })) << "some stage never ran a step";
}

struct Shape {
  int stages = 1;
  int threads = 1;
};

class IdentityTest : public testing::TestWithParam<Shape> {};

TEST_P(IdentityTest, TwentyRequestsTogetherGiveTheTokensThatEachGivesAlone) {
  const auto [stages, threads] = GetParam();
  auto cluster =
      TestCluster::Start({"--stages", absl::StrCat(stages), "--threads", absl::StrCat(threads)});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(TokensOf(GenerateAll((*cluster)->gateway(), Requests())), Alone());
  ExpectStagesThatWorked(**cluster, stages);
  EXPECT_EQ((*cluster)->Stop(), 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, IdentityTest,
                         testing::Values(Shape{1, 2}, Shape{2, 1}, Shape{2, 2}, Shape{3, 1},
                                         Shape{5, 1}),
                         [](const auto& shape) {
                           return absl::StrCat(shape.param.stages, "Stages", shape.param.threads,
                                               "Threads");
                         });

class InstructionSetTest : public testing::TestWithParam<InstructionSet> {};

// Fewer and shorter requests, since the scalar set is slow: some greedy, some sampled.
TEST_P(InstructionSetTest, GivesTheSameTokens) {
  auto cluster =
      TestCluster::Start({"--stages", "2", "--device", absl::StrCat("cpu:", Name(GetParam()))});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  constexpr uint32_t kFewTokens = 12;
  std::vector<v1::GenerateRequest> requests;
  const std::vector<size_t> chosen = {0, 1, Prompts().size(), Prompts().size() + 1};
  for (const size_t i : chosen) {
    requests.push_back(Requests()[i]);
    requests.back().mutable_sampling()->set_max_tokens(kFewTokens);
  }
  const std::vector<Outcome> outcomes = GenerateAll((*cluster)->gateway(), requests);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const std::vector<int32_t>& whole = Alone().at(chosen[i]);
    EXPECT_EQ(outcomes[i].tokens, std::vector<int32_t>(whole.begin(), whole.begin() + kFewTokens));
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, InstructionSetTest, testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& set) { return std::string(Name(set.param)); });

TEST(IdentityTokensTest, TheTokensComparedAreManyAndDiffer) {
  std::set<int32_t> distinct;
  for (const auto& tokens : Alone()) distinct.insert(tokens.begin(), tokens.end());
  EXPECT_GE(distinct.size(), 40u);
  for (size_t i = 0; i < Prompts().size(); ++i) {
    EXPECT_NE(Alone()[i], Alone()[i + Prompts().size()]) << "sampling at temperature 1 is greedy";
  }
}

TEST(GoldenTokensTest, GreedyContinuationsAreThoseOfTransformers) {
  const std::string path = std::string(SAUVA_SOURCE_DIR) + "/tests/golden/prose_greedy.json";
  const auto golden = nlohmann::json::parse(ReadWholeFile(path));
  auto cluster = TestCluster::Start({"--stages", "3"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_GE(golden.at("cases").size(), 10u);
  for (const auto& expected : golden.at("cases")) {
    const std::vector<int32_t> tokens = expected.at("generated_ids");
    const Outcome outcome =
        Generate((*cluster)->gateway(),
                 GreedyRequest(expected.at("prompt"), static_cast<uint32_t>(tokens.size())));
    EXPECT_EQ(outcome.tokens, tokens) << expected.at("prompt");
  }
}

}  // namespace
}  // namespace sauva
