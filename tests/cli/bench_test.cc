#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/bench_gateway.h"
#include "cli/bench_model.h"
#include "kernels/bench/measurement.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

TEST(PercentilesTest, AreValuesByNearestRank) {
  EXPECT_EQ(PercentilesOf({}).most, 0);
  EXPECT_EQ(PercentilesOf({7}).p50, 7);
  EXPECT_EQ(PercentilesOf({7}).p99, 7);
  std::vector<double> hundred;
  for (int i = 100; i >= 1; --i) hundred.push_back(i);
  const Percentiles percentiles = PercentilesOf(hundred);
  EXPECT_EQ(percentiles.p50, 50);
  EXPECT_EQ(percentiles.p90, 90);
  EXPECT_EQ(percentiles.p99, 99);
  EXPECT_EQ(percentiles.most, 100);
}

TEST(GatewayBenchTest, CountsErrorsByCodeAndLeavesTheirTimesOut) {
  const RequestTrace good = {.first_token_ms = 10,
                             .token_gaps_ms = {2, 4},
                             .total_ms = 16,
                             .prompt_tokens = 5,
                             .completion_tokens = 3};
  const RequestTrace slow = {.status = absl::UnavailableError("gone"), .first_token_ms = 999};
  const RequestTrace refused = {.status = absl::ResourceExhaustedError("full")};
  const GatewayBenchResult result = Summarize({good, slow, refused, slow}, 2);
  EXPECT_EQ(result.completed, 1);
  EXPECT_THAT(result.errors,
              UnorderedElementsAre(Pair("UNAVAILABLE", 2), Pair("RESOURCE_EXHAUSTED", 1)));
  EXPECT_EQ(result.first_token_ms.most, 10);
  EXPECT_EQ(result.token_gap_ms.p50, 2);
  EXPECT_EQ(result.token_gap_ms.p99, 4);
  EXPECT_THAT(GatewayBenchText(result), HasSubstr("2 failed with UNAVAILABLE"));
  const auto json = nlohmann::json::parse(GatewayBenchJson(result));
  EXPECT_EQ(json["tokens_per_second"], 1.5);
  EXPECT_EQ(json["errors"]["RESOURCE_EXHAUSTED"], 1);
}

TEST(GatewayBenchTest, AGatewayThatIsNotThereIsAnErrorOfEachRequest) {
  GatewayBenchOptions options{.requests = 3, .concurrency = 2};
  options.request.gateways = {"127.0.0.1:1"};
  options.request.sampling.max_tokens = 1;
  const GatewayBenchResult result = RunGatewayBench(options);
  EXPECT_EQ(result.completed, 0);
  EXPECT_THAT(result.errors, ElementsAre(Pair("UNAVAILABLE", 3)));
}

TEST(ModelBenchTest, AModelThatIsNotThereIsAnError) {
  EXPECT_FALSE(RunModelBench({.model = "/nonexistent"}).ok());
}

TEST(BencherTest, SharesAreOfTheNearerLimit) {
  const auto bencher = Bencher::Create({.threads = 1, .read_bytes = 1 << 20}, 3);
  ASSERT_TRUE(bencher.ok()) << bencher.status();
  int runs = 0;
  const Measurement reading = (*bencher)->Measure({.bytes = 1e12, .float_operations = 1}, [&] {
    ++runs;
    return 1e-3;
  });
  EXPECT_EQ(runs, 4) << "one to warm up";
  EXPECT_EQ(reading.limit, "read");
  ASSERT_EQ(reading.shares.size(), 3u);
  EXPECT_EQ(reading.median_seconds(), 1e-3);
  EXPECT_NEAR(reading.median_share(), 1e12 / reading.limits.read_bytes_per_second / 1e-3,
              1e-6 * reading.median_share());
  const Measurement computing =
      (*bencher)->Measure({.bytes = 1, .int8_operations = 1e15}, [] { return 1.0; });
  EXPECT_EQ(computing.limit, "int8");
}

TEST(BencherTest, KnownLimitsAreTakenAsTheyAre) {
  Bencher bencher({.read_bytes_per_second = 1e9,
                   .int8_operations_per_second = 4e12,
                   .float_operations_per_second = 2e12,
                   .floats = "f16"},
                  1);
  const Measurement computing =
      bencher.Measure({.bytes = 1, .float_operations = 1e12}, [] { return 1.0; });
  EXPECT_EQ(computing.limit, "f16");
  EXPECT_DOUBLE_EQ(computing.median_share(), 0.5);
}

TEST(ModelBenchTest, RandomWeightsNeedAConfigurationAlone) {
  const TemporaryDirectory folder;
  const std::string& directory = folder.path();
  std::ofstream(directory + "/config.json")
      << R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
             "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
             "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
             "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"})";
  ModelBenchOptions options = {.model = directory,
                               .weight_format = LoadFormat::kInt8,
                               .threads = 1,
                               .prompt_tokens = 20,
                               .decode_steps = 2,
                               .rows = {3},
                               .repeats = 1,
                               .probe_bytes = 1 << 20};
  EXPECT_TRUE(absl::IsNotFound(RunModelBench(options).status()));
  options.random_weights = true;
  std::vector<std::string> news;
  const auto result = RunModelBench(
      options, [&](const ModelBenchResult& so_far) { news.push_back(ModelBenchNews(so_far)); });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->lines.size(), 2u);
  EXPECT_THAT(news, ElementsAre(HasSubstr("loaded in"), StartsWith("prefill    20 rows "),
                                StartsWith("decode      3 rows ")));
  // Both layers' seven matrices and the head, a byte or two each.
  EXPECT_GT(result->weight_bytes, 2 * (3 * 64 * 96 + 3 * 64 * 64));
  options.depth = 96;  // found in the cache, or it is an error
  const auto deep = RunModelBench(options);
  EXPECT_TRUE(deep.ok()) << deep.status();
}

// Makes a checkpoint of a format with the tool and measures it, which loads and runs it.
class RandomCheckpointTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RandomCheckpointTest, IsLoadedAndRuns) {
  if (std::system("python3 --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no python3";
  const TemporaryDirectory folder;
  const std::string& directory = folder.path();
  const std::string make = std::string("python3 " SAUVA_SOURCE_DIR "/tools/random_checkpoint.py") +
                           " --shape tiny --context 256 --out " + directory + " --format " +
                           GetParam() + " > /dev/null";
  ASSERT_EQ(std::system(make.c_str()), 0) << make;
  const auto result = RunModelBench({.model = directory,
                                     .threads = 2,
                                     .stages = 2,
                                     .prompt_tokens = 32,
                                     .decode_steps = 2,
                                     .rows = {1, 3},
                                     .repeats = 1,
                                     .probe_bytes = 1 << 20});
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->lines.size(), 3u);
  EXPECT_EQ(result->lines[0].name, "prefill");
  EXPECT_EQ(result->lines[2].rows, 3);
  for (const ModelBenchLine& line : result->lines) {
    EXPECT_GT(line.tokens_per_second(), 0);
    EXPECT_GT(line.measurement.median_share(), 0);
  }
  const auto json = nlohmann::json::parse(ModelBenchJson(*result));
  EXPECT_EQ(json["lines"].size(), 3u);
  EXPECT_EQ(json["lines"][1]["rows"], 1);
}

INSTANTIATE_TEST_SUITE_P(Formats, RandomCheckpointTest,
                         ::testing::Values("f32", "f16", "bf16", "gptq4 --group-size 32",
                                           "gptq4 --group-size 128 --quantize-head",
                                           "awq4 --group-size 128", "int8"));

}  // namespace
}  // namespace sauva
