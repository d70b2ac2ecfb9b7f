// Coordinator, workers and gateway sessions together against a network and processes that
// misbehave. SAUVA_SIM_SEEDS=FIRST[-LAST] runs these seeds instead of the usual ones; with
// SAUVA_SIM_TRACE=1 they tell what happens.
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/sim/world.h"

namespace sauva::sim {
namespace {

constexpr uint64_t kUsualSeeds = SAUVA_SIM_USUAL_SEEDS;
// Enough seeds bring about everything.
constexpr uint64_t kManySeeds = 2000;

struct Seeds {
  uint64_t first = 1;
  uint64_t last = kUsualSeeds;
  bool chosen = false;
};

Seeds SeedsToRun() {
  Seeds seeds;
  const char* text = std::getenv("SAUVA_SIM_SEEDS");
  if (text == nullptr) return seeds;
  const std::vector<std::string> parts = absl::StrSplit(text, '-');
  seeds.chosen = absl::SimpleAtoi(parts[0], &seeds.first);
  seeds.last = seeds.first;
  if (parts.size() == 2) seeds.chosen &= absl::SimpleAtoi(parts[1], &seeds.last);
  EXPECT_TRUE(seeds.chosen) << "SAUVA_SIM_SEEDS is '" << text << "'; expected FIRST[-LAST]";
  return seeds;
}

TEST(SimulationTest, EveryAcceptedRequestEndsOnceWithTheOraclesTokens) {
  const Seeds seeds = SeedsToRun();
  Happenings all;
  int failed = 0;
  for (uint64_t seed = seeds.first; seed <= seeds.last && failed < 5; ++seed) {
    World world(ScenarioOf(seed),
                std::getenv("SAUVA_SIM_TRACE") ? World::Trace::kOn : World::Trace::kOff);
    const std::vector<std::string> violations = world.Run();
    all += world.happenings();
    if (violations.empty()) continue;
    ++failed;
    ADD_FAILURE() << "seed " << seed << ": " << violations[0]
                  << "\n  replay with: SAUVA_SIM_SEEDS=" << seed << " "
                  << testing::internal::GetArgvs()[0];
  }
  for (const auto& [what, count] : all.counts) {
    std::printf("%10llu %s\n", static_cast<unsigned long long>(count), what.c_str());
  }
  std::printf("%10.1f s from the last fault to the last request's end at most\n",
              absl::ToDoubleSeconds(all.longest_wait));
  if (seeds.chosen || failed > 0 || kUsualSeeds < kManySeeds) return;
  for (const char* what :
       {"workers killed", "workers frozen", "partitions", "wires broken", "coordinators killed",
        "coordinators frozen", "drains", "slow readers", "slow networks", "second joins",
        "epochs adopted", "resumes", "preemptions", "cached tokens", "workers drained",
        "NCCL links blocked"}) {
    EXPECT_GT(all.counts[what], 100u) << "the seeds do not bring about: " << what;
  }
}

TEST(SimulationTest, ASeedAlwaysTellsTheSameStory) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    World first(ScenarioOf(seed));
    World second(ScenarioOf(seed));
    EXPECT_EQ(first.Run(), second.Run());
    EXPECT_EQ(first.happenings().counts, second.happenings().counts);
  }
}

}  // namespace
}  // namespace sauva::sim
