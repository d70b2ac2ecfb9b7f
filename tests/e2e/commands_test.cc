#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/e2e/stream_client.h"
#include "tests/temporary_directory.h"

// The subcommands as people and scripts run them.
namespace sauva {
namespace {

using ::testing::HasSubstr;

const std::string kSauva = std::string(SAUVA_BINARY_DIR) + "/sauva";

std::vector<nlohmann::json> JsonLines(const std::string& text) {
  std::vector<nlohmann::json> values;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) values.push_back(nlohmann::json::parse(line));
  return values;
}

class CommandsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto started = TestCluster::Start({"--stages", "2"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }
  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_F(CommandsTest, GenerateStreamsTextAndPrintsItsSpeedApart) {
  const FinishedProcess result =
      RunProcess({kSauva, "generate", "--gateway", cluster_->gateway(), "--max-tokens", "16",
                  "--temperature", "0", "--ignore-eos", Prompts()[0]});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  EXPECT_EQ(result.out, Generate(cluster_->gateway(), GreedyRequest(Prompts()[0], 16)).text + "\n");
  EXPECT_THAT(result.error, HasSubstr("tokens/s"));
}

TEST_F(CommandsTest, GenerateJsonHasOneLinePerSample) {
  const FinishedProcess result =
      RunProcess({kSauva, "generate", "--gateway", cluster_->gateway(), "--max-tokens", "8", "--n",
                  "2", "--seed", "3", "--ignore-eos", "--json", Prompts()[1]});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  const auto samples = JsonLines(result.out);
  ASSERT_EQ(samples.size(), 2u);
  for (const auto& sample : samples) {
    EXPECT_EQ(sample.at("token_ids").size(), 8u);
    EXPECT_EQ(sample.at("finish_reason"), "length");
    EXPECT_EQ(sample.at("usage").at("completion_tokens"), 8);
    EXPECT_GT(sample.at("usage").at("prompt_tokens"), 0);
    EXPECT_GT(sample.at("timing").at("total_ms"), 0.0);
  }
  EXPECT_NE(samples[0].at("token_ids"), samples[1].at("token_ids"));
}

TEST_F(CommandsTest, GenerateGivesUpAtItsTimeout) {
  const FinishedProcess result =
      RunProcess({kSauva, "generate", "--gateway", cluster_->gateway(), "--max-tokens", "1000",
                  "--ignore-eos", "--timeout", "0.3", Prompts()[0]});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.error, HasSubstr("DEADLINE_EXCEEDED"));
}

TEST_F(CommandsTest, StatusNamesEveryStage) {
  const FinishedProcess result =
      RunProcess({kSauva, "status", "--coordinator", cluster_->coordinator(), "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  const nlohmann::json stages = JsonLines(result.out).at(0).at("pipelines").at(0).at("stages");
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_EQ(stages[0].at("layers")[1], stages[1].at("layers")[0]);
  EXPECT_EQ(stages[1].at("phase"), "serving");
  const FinishedProcess table =
      RunProcess({kSauva, "status", "--coordinator", cluster_->coordinator()});
  EXPECT_THAT(table.out, HasSubstr(stages[0].at("worker_id").get<std::string>()));
}

TEST_F(CommandsTest, TokenizeGivesTheSameWithAndWithoutACluster) {
  const std::string text = "Well, Prince \xe2\x80\x94 so Genoa and Lucca";
  const FinishedProcess here =
      RunProcess({kSauva, "tokenize", "--json", "--model", ModelDirectory(), text});
  const FinishedProcess there =
      RunProcess({kSauva, "tokenize", "--json", "--gateway", cluster_->gateway(), text});
  EXPECT_EQ(here.exit_code, 0) << here.error;
  EXPECT_EQ(here.out, there.out);
  EXPECT_GT(JsonLines(here.out).at(0).at("token_ids").size(), 5u);
}

TEST(ModelCommandsTest, EvalMeasuresAText) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/text.txt";
  for (int i = 0; i < 20; ++i) {
    std::ofstream(path, std::ios::app) << Prompts()[static_cast<size_t>(i) % 10] << " was there.\n";
  }
  const FinishedProcess result =
      RunProcess({kSauva, "eval", "--json", "--model", ModelDirectory(), "--text", path});
  EXPECT_EQ(result.exit_code, 0) << result.error;
  const nlohmann::json measured = JsonLines(result.out).at(0);
  EXPECT_GT(measured.at("tokens"), 100);
  EXPECT_GT(measured.at("perplexity"), 1.0);
  EXPECT_LT(measured.at("perplexity"), 2000.0) << "a uniform guess would be 4096";
  EXPECT_GT(measured.at("tokens_per_second"), 0.0);

  // The text says the same again and again, so its beginning is about as hard as the whole.
  const FinishedProcess beginning =
      RunProcess({kSauva, "eval", "--json", "--model", ModelDirectory(), "--text", path,
                  "--max-tokens", "100"});
  EXPECT_EQ(beginning.exit_code, 0) << beginning.error;
  const nlohmann::json cut = JsonLines(beginning.out).at(0);
  EXPECT_EQ(cut.at("tokens"), 99);
  EXPECT_GT(cut.at("bits_per_byte"), measured.at("bits_per_byte").get<double>() / 2);
  EXPECT_LT(cut.at("bits_per_byte"), measured.at("bits_per_byte").get<double>() * 2);

  const FinishedProcess missing =
      RunProcess({kSauva, "eval", "--model", ModelDirectory(), "--text", "/nowhere.txt"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.error, HasSubstr("/nowhere.txt"));
}

// Two passages of some kilobytes that have nothing in common.
std::string Passage(const std::string& last_word) {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += Prompts()[static_cast<size_t>(i) % 10].substr(0, 24) + " " + std::to_string(i) + " " +
            last_word + (i % 8 == 7 ? ".\n\n" : ", ");
  }
  return text;
}

TEST(ModelCommandsTest, EvalTellsWhetherItsTextWasCalibratedOn) {
  const TemporaryDirectory directory;
  const std::string seen = directory.path() + "/seen.txt";
  const std::string unseen = directory.path() + "/unseen.txt";
  std::ofstream(seen) << Passage("went home");
  std::ofstream(unseen) << Passage("stayed");
  const std::string model = directory.path() + "/int8-static";
  const FinishedProcess made = RunProcess({kSauva, "quantize", "--model", ModelDirectory(), "--out",
                                           model, "--method", "int8-static", "--calibration", seen,
                                           "--samples", "4", "--sample-tokens", "256"});
  ASSERT_EQ(made.exit_code, 0) << made.error;

  const auto eval = [&](const std::string& text) {
    return RunProcess({kSauva, "eval", "--json", "--model", model, "--text", text, "--context",
                       "256", "--max-tokens", "2000"});
  };
  const FinishedProcess warned = eval(seen);
  EXPECT_EQ(warned.exit_code, 0) << warned.error;
  const nlohmann::json measured = JsonLines(warned.out).at(0);
  EXPECT_GE(measured.at("calibration_windows"), 20);
  EXPECT_GE(measured.at("calibration_windows_in_text"), 5);
  EXPECT_THAT(warned.error, HasSubstr("was calibrated on are in " + seen));
  const FinishedProcess silent = eval(unseen);
  EXPECT_EQ(silent.exit_code, 0) << silent.error;
  EXPECT_EQ(JsonLines(silent.out).at(0).at("calibration_windows_in_text"), 0);
  EXPECT_EQ(silent.error, "");

  const auto table = [&](const std::string& text) {
    return RunProcess({"/usr/bin/python3", "-B", SAUVA_SOURCE_DIR "/tools/quantization_table.py",
                       "--sauva", kSauva, "--model", ModelDirectory(), "--calibration", seen,
                       "--text", text, "--work", directory.path(), "--max-tokens", "600",
                       "int8-static"});
  };
  const FinishedProcess refused = table(seen);
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_THAT(refused.error, HasSubstr("windows kept of the calibration text are in the text"));
  const FinishedProcess made_table = table(unseen);
  EXPECT_EQ(made_table.exit_code, 0) << made_table.error;
  EXPECT_THAT(made_table.out, HasSubstr("| int8 static |"));
}

TEST(ModelCommandsTest, InspectShowsAModelAndRefusesATruncatedFile) {
  const FinishedProcess whole = RunProcess({kSauva, "inspect", ModelDirectory()});
  EXPECT_EQ(whole.exit_code, 0) << whole.error;
  EXPECT_THAT(whole.out, HasSubstr("[4096, 256]"));

  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/cut.safetensors";
  std::ofstream(path) << ReadWholeFile(ModelDirectory() + "/model.safetensors").substr(0, 100'000);
  const FinishedProcess cut = RunProcess({kSauva, "inspect", path});
  EXPECT_EQ(cut.exit_code, 1);
  EXPECT_THAT(cut.error, HasSubstr("cut.safetensors"));
}

}  // namespace
}  // namespace sauva
