#include "coordinator/coordinator_flags.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sauva {
namespace {

using testing::HasSubstr;

absl::StatusOr<CoordinatorProcessConfig> Parse(const std::string& command_line) {
  CLI::App app;
  CoordinatorFlags flags(app);
  app.parse(command_line);
  return flags.Config();
}

TEST(CoordinatorFlagsTest, AModelIsAPathOrANameUnderTheModelDirectory) {
  const auto by_path = Parse("--model /models/prose/");
  ASSERT_TRUE(by_path.ok()) << by_path.status();
  EXPECT_EQ(by_path->model_dir, "/models");
  EXPECT_EQ(by_path->model, "prose");
  const auto by_name = Parse("--model-dir /models --model prose");
  ASSERT_TRUE(by_name.ok());
  EXPECT_EQ(by_name->model_dir, "/models");
  EXPECT_EQ(by_name->model, "prose");
  const auto relative = Parse("--model prose");
  ASSERT_TRUE(relative.ok());
  EXPECT_EQ(relative->model_dir, std::filesystem::current_path().string());
}

TEST(CoordinatorFlagsTest, WithoutAnyModelOrDirectoryNothingCanBeServed) {
  EXPECT_THAT(Parse("").status().message(), HasSubstr("--model and --model-dir"));
}

TEST(CoordinatorFlagsTest, EverySettingReachesItsPlace) {
  const auto config = Parse(
      "--model /m/x --replicas 2 --stages 3 --spares 1 --kv-memory 2KiB --max-context 99 "
      "--weights int8 --kv-type f16 --heartbeat-ms 100 --lease-ms 900 --expect-workers 7 --mix");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->replicas, 2);
  EXPECT_EQ(config->coordinator.stages, 3);
  EXPECT_EQ(config->coordinator.spares, 1);
  EXPECT_EQ(config->coordinator.kv_memory_bytes, 2048u);
  EXPECT_EQ(config->format.max_context, 99);
  EXPECT_EQ(config->format.weight_format, "int8");
  EXPECT_EQ(config->format.kv_type, "f16");
  EXPECT_EQ(config->coordinator.heartbeat, absl::Milliseconds(100));
  EXPECT_EQ(config->coordinator.lease, absl::Milliseconds(900));
  EXPECT_EQ(config->coordinator.expected_workers, 7);
  EXPECT_EQ(config->coordinator.mixing, BackendMixing::kAnyClass);
}

TEST(CoordinatorFlagsTest, ALeaseShorterThanTwoHeartbeatsIsRefused) {
  EXPECT_TRUE(Parse("--model /m/x --heartbeat-ms 100 --lease-ms 200").ok());
  EXPECT_THAT(Parse("--model /m/x --heartbeat-ms 100 --lease-ms 199").status().message(),
              HasSubstr("--lease-ms is 199"));
}

TEST(CoordinatorFlagsTest, WrongValuesAreWrongUsage) {
  for (const std::string bad : {"--replicas 0", "--weights int5", "--kv-type f64", "--stages -1",
                                "--max-context x", "--unknown"}) {
    EXPECT_THROW(Parse("--model /m/x " + bad), CLI::ParseError) << bad;
  }
  EXPECT_FALSE(Parse("--model /m/x --kv-memory 12parsecs").ok());
}

}  // namespace
}  // namespace sauva
