// Trained weights in every written format: the tokens are the same over one to three stages, alone
// and with fifteen others, with every instruction set.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "quantize/quantize_model.h"
#include "tests/engine/engine_testing.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

constexpr int kNumTexts = 16;
constexpr int kNewTokens = 24;

const nlohmann::json& Golden() {
  static const auto golden = [] {
    std::ifstream file(GoldenPath("prose_greedy.json"));
    return nlohmann::json::parse(file);
  }();
  return golden;
}

// Golden prompts without the longest, which the plain instruction sets take long for; every
// second text is sampled at temperature 1.
std::vector<NewSequence> Texts(int first, int count) {
  const auto& cases = Golden()["cases"];
  std::vector<NewSequence> sequences;
  for (int i = first; i < first + count; ++i) {
    const auto& prompt = cases[1 + static_cast<size_t>(i) % (cases.size() - 1)]["prompt_ids"];
    NewSequence sequence = Continue(prompt, kNewTokens);
    sequence.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    sequence.sampling.seed = static_cast<uint64_t>(i);
    sequence.sampling.logprobs = 5;
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

struct Format {
  const char* name = "";
  Method method = Method::kInt8;
  int bits = 4;
  bool act_order = false;
};

class ProseQuantizedTest : public testing::TestWithParam<Format> {
 protected:
  void SetUp() override {
    const std::string calibration = directory_ + "/calibration.txt";
    for (const auto& golden : Golden()["cases"]) {
      std::ofstream(calibration, std::ios::app) << std::string(golden["prompt"]) << "\n\n";
    }
    const absl::Status status = QuantizeModel({.model = SAUVA_SOURCE_DIR "/models/prose",
                                               .out = directory_ + "/out",
                                               .method = GetParam().method,
                                               .bits = GetParam().bits,
                                               .group_size = 64,
                                               .act_order = GetParam().act_order,
                                               .calibration = calibration,
                                               .samples = 3,
                                               .sample_tokens = 96,
                                               .threads = 2},
                                              {});
    ASSERT_TRUE(status.ok()) << status;
    model_ = OpenOrDie(directory_ + "/out");
  }

  LocalPipeline::Completion Alone(int text) const {
    return Ask(CpuFactory(1, InstructionSet::kAuto), 1, Texts(text, 1))[0];
  }

  std::vector<LocalPipeline::Completion> Ask(const LocalPipeline::BackendFactory& factory,
                                             int stages, std::vector<NewSequence> texts) const {
    auto pipeline = LocalPipeline::Create(model_.spec, *model_.checkpoint, factory,
                                          {.num_stages = stages, .max_step_tokens = 60});
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    EXPECT_EQ((*pipeline)->num_stages(), stages);
    auto completions = (*pipeline)->Generate(std::move(texts));
    EXPECT_TRUE(completions.ok()) << completions.status();
    return *std::move(completions);
  }

 private:
  const TemporaryDirectory folder_;
  const std::string directory_ = folder_.path();
  Model model_;
};

TEST_P(ProseQuantizedTest, TokensDependOnNothingElse) {
  std::vector<LocalPipeline::Completion> truth;
  std::set<TokenId> distinct;
  for (int i = 0; i < kNumTexts; ++i) {
    truth.push_back(Alone(i));
    EXPECT_EQ(truth.back().tokens.size(), static_cast<size_t>(kNewTokens));
    distinct.insert(truth.back().tokens.begin(), truth.back().tokens.end());
  }
  EXPECT_GE(distinct.size(), 40u);
  for (const InstructionSet isa : SupportedInstructionSets()) {
    for (const int stages : {1, 2, 3}) {
      // Alone a greedy text, then a sampled one, in turn.
      for (const auto& [first, count] : {std::pair(stages, 1), std::pair(0, kNumTexts)}) {
        // Scalar code takes a tenth of a second for a token.
        if (isa == InstructionSet::kScalar && count > 1 && stages != 2) continue;
        SCOPED_TRACE(testing::Message() << Name(isa) << ", " << stages << " stages, " << count);
        const auto completions = Ask(CpuFactory(2, isa), stages, Texts(first, count));
        for (int i = 0; i < count; ++i) {
          const auto& expected = truth[static_cast<size_t>(first + i)];
          const auto& found = completions[static_cast<size_t>(i)];
          EXPECT_EQ(found.tokens, expected.tokens) << "text " << first + i;
          EXPECT_TRUE(found.logprobs == expected.logprobs) << "text " << first + i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ProseQuantizedTest,
                         testing::Values(Format{"int8", Method::kInt8},
                                         Format{"int8_static", Method::kInt8Static},
                                         Format{"llm_int8", Method::kLlmInt8},
                                         Format{"nf4", Method::kNf4}, Format{"awq", Method::kAwq},
                                         Format{"gptq4", Method::kGptq},
                                         Format{"gptq3", Method::kGptq, 3},
                                         Format{"gptq4_act_order", Method::kGptq, 4, true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace sauva
