#include <gtest/gtest.h>
#include <signal.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "tests/e2e/stream_client.h"

// A worker dies or freezes while streams run through it: every stream ends with exactly
// the tokens it would have had, whether a spare takes over or the survivors take more.
namespace sauva {
namespace {

constexpr uint32_t kNumTokens = 160;
constexpr int kNumStages = 3;

std::vector<v1::GenerateRequest> EightRequests() {
  return MixedRequests({.greedy = 4, .sampled = 4}, kNumTokens);
}

// The tokens of the requests on a cluster where nothing happens; made once.
const std::vector<Outcome>& Undisturbed() {
  static const auto outcomes = [] {
    auto cluster = TestCluster::Start({"--workers", "1"});
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    return cluster.ok() ? GenerateAll((*cluster)->gateway(), EightRequests())
                        : std::vector<Outcome>();
  }();
  return outcomes;
}

enum class Recovery { kSpare, kSurvivors };

struct Loss {
  int stage = 0;
  int signal = SIGKILL;
  Recovery recovery = Recovery::kSpare;
};

std::vector<std::string> FlagsFor(Recovery recovery) {
  std::vector<std::string> flags = {"--stages", absl::StrCat(kNumStages), "--threads", "1",
                                    "--no-restart"};
  if (recovery == Recovery::kSpare) flags.insert(flags.end(), {"--spares", "1"});
  return flags;
}

class WorkerLossTest : public testing::TestWithParam<Loss> {};

TEST_P(WorkerLossTest, EveryStreamEndsWithTheUndisturbedTokens) {
  ASSERT_EQ(Undisturbed().size(), 8u);
  auto started = TestCluster::Start(FlagsFor(GetParam().recovery));
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  const PipelineStatus pipeline = cluster.Pipeline();
  ASSERT_EQ(static_cast<int>(pipeline.stages.size()), kNumStages);
  const std::string victim = pipeline.stages[static_cast<size_t>(GetParam().stage)].metrics_address;

  const StreamClients streams = StartAllAndAwaitTokens(cluster.gateway(), EightRequests());
  const double victim_steps = ScrapeMetric(victim, "sauva_stage_steps_total").value_or(0);
  cluster.Kill(cluster.PidOf(victim), GetParam().signal);
  EXPECT_GE(victim_steps, 5) << "the lost stage had worked for the streams";

  absl::Duration longest_gap;
  for (size_t i = 0; i < streams.size(); ++i) {
    const Outcome outcome = streams[i]->Finish();
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.tokens, Undisturbed()[i].tokens) << "stream " << i;
    EXPECT_EQ(outcome.text, Undisturbed()[i].text) << "stream " << i;
    EXPECT_EQ(outcome.usage.resumes(), 1u);
    EXPECT_TRUE(outcome.usage.exact_resume());
    longest_gap = std::max(longest_gap, outcome.longest_gap);
  }
  EXPECT_EQ(ScrapeMetric(cluster.http(), "sauva_resumes_total"), 8);
  const PipelineStatus after = cluster.Pipeline();
  EXPECT_GT(after.epoch, pipeline.epoch);
  const int survivors = GetParam().recovery == Recovery::kSpare ? kNumStages : kNumStages - 1;
  EXPECT_LE(static_cast<int>(after.stages.size()), survivors);
  for (const StageStatus& stage : after.stages) EXPECT_NE(stage.metrics_address, victim);
  std::cout << "longest pause of a stream: " << longest_gap << "\n";
  RecordProperty("longest_pause_ms", static_cast<int>(absl::ToInt64Milliseconds(longest_gap)));
}

std::string NameOf(const testing::TestParamInfo<Loss>& info) {
  static constexpr const char* kStages[] = {"Head", "Middle", "Last"};
  return absl::StrCat(info.param.signal == SIGKILL ? "Killed" : "Stopped",
                      kStages[info.param.stage],
                      info.param.recovery == Recovery::kSpare ? "WithASpare" : "WithoutASpare");
}

INSTANTIATE_TEST_SUITE_P(
    Losses, WorkerLossTest,
    testing::Values(Loss{0, SIGKILL, Recovery::kSpare}, Loss{1, SIGKILL, Recovery::kSpare},
                    Loss{2, SIGKILL, Recovery::kSpare}, Loss{0, SIGKILL, Recovery::kSurvivors},
                    Loss{1, SIGKILL, Recovery::kSurvivors}, Loss{2, SIGKILL, Recovery::kSurvivors},
                    Loss{0, SIGSTOP, Recovery::kSpare}, Loss{1, SIGSTOP, Recovery::kSurvivors},
                    Loss{2, SIGSTOP, Recovery::kSpare}),
    NameOf);

TEST(WorkerRestartTest, ADeadWorkerComesBackAndServesAgain) {
  auto started = TestCluster::Start({"--stages", "2"});
  ASSERT_TRUE(started.ok()) << started.status();
  TestCluster& cluster = **started;
  cluster.Kill(cluster.PidOf(cluster.Pipeline().stages[1].metrics_address), SIGKILL);
  ASSERT_TRUE(cluster.AwaitEvent("died", "worker").has_value());
  ASSERT_TRUE(cluster.AwaitEvent("restarted", "worker").has_value());
  const Outcome outcome = Generate(cluster.gateway(), GreedyRequest(Prompts()[0], 8));
  EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  EXPECT_EQ(outcome.tokens.size(), 8u);
}

}  // namespace
}  // namespace sauva
