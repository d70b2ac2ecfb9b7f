// Whole models through every method: what is written opens, gives the same tokens however it
// is computed, survives a kill, and wrong inputs are refused by name.
#include "quantize/quantize_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "model/model.h"
#include "tests/engine/engine_testing.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr TinyCheckpoint kShape = {.hidden_size = 64,
                                   .intermediate_size = 128,
                                   .num_layers = 3,
                                   .num_heads = 4,
                                   .num_kv_heads = 4,
                                   .head_dim = 16,
                                   .max_context = 256,
                                   .dtype = DType::kF16};

const std::string& Source() {
  static const std::string directory = WriteTinyCheckpoint("quantize_source", kShape);
  return directory;
}

// A text of made-up words, beside the source.
std::string Calibration() {
  const std::string path = fs::path(Source()).parent_path() / "calibration.txt";
  std::string text;
  uint32_t state = 1;
  for (int i = 0; i < 3000; ++i) {
    state = state * 1664525u + 1013904223u;
    text += static_cast<char>('a' + (state >> 24) % 26);
    if (state >> 16 & 1) text += i % 50 == 0 ? "\n\n" : " ";
  }
  WriteFile(path, text);
  return path;
}

std::string OutPath(const std::string& name) { return fs::path(Source()).parent_path() / name; }

QuantizeOptions OptionsOf(Method method, const std::string& name) {
  return {.model = Source(),
          .out = OutPath(name),
          .method = method,
          .group_size = 32,
          .calibration = Calibration(),
          .samples = 8,
          .sample_tokens = 64,
          .threads = 2};
}

class EveryMethodTest : public testing::TestWithParam<Method> {
 protected:
  static std::string FileName() {
    std::string name = Name(GetParam());
    std::ranges::replace(name, '-', '_');
    return name;
  }
};

std::vector<NewSequence> Texts(int count) {
  std::vector<NewSequence> sequences;
  for (int i = 0; i < count; ++i) {
    NewSequence sequence = Continue(RandomTokens(5 + 9 * i, 256, static_cast<uint64_t>(i)), 12);
    sequence.sampling.temperature = i % 4 == 0 ? 0.0f : 5.0f;
    sequence.sampling.seed = static_cast<uint64_t>(i);
    sequence.sampling.logprobs = 5;
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

using Completions = std::vector<LocalPipeline::Completion>;

Completions Ask(const Model& model, const LocalPipeline::BackendFactory& factory, int stages,
                std::vector<NewSequence> sequences) {
  auto pipeline =
      LocalPipeline::Create(model.spec, *model.checkpoint, factory, {.num_stages = stages});
  EXPECT_TRUE(pipeline.ok()) << pipeline.status();
  auto completions = (*pipeline)->Generate(std::move(sequences));
  EXPECT_TRUE(completions.ok()) << completions.status();
  return *std::move(completions);
}

TEST_P(EveryMethodTest, WritesAModelWhoseTokensDependOnNothingElse) {
  const QuantizeOptions options = OptionsOf(GetParam(), "same_" + FileName());
  int layers = 0;
  const absl::Status status = QuantizeModel(options, [&](const LayerDone& done) {
    EXPECT_EQ(done.layer, layers++);
    EXPECT_FALSE(done.resumed);
    EXPECT_FALSE(fs::exists(options.out)) << "no half checkpoint under the final name";
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(layers, kShape.num_layers);
  EXPECT_FALSE(fs::exists(options.out + ".partial"));
  const Model model = OpenOrDie(options.out);
  EXPECT_NE(model.quantization, "");
  EXPECT_LT(DescribeJson(model)["linear_bits_per_weight"], 14);

  constexpr int kTexts = 16;
  Completions truth;
  std::set<TokenId> distinct;
  for (const NewSequence& text : Texts(kTexts)) {
    truth.push_back(Ask(model, ReferenceFactory(), 1, {text})[0]);
    distinct.insert(truth.back().tokens.begin(), truth.back().tokens.end());
  }
  EXPECT_GE(distinct.size(), 40u);
  const auto expect_truth = [&](const Completions& completions) {
    for (size_t i = 0; i < completions.size(); ++i) {
      EXPECT_EQ(completions[i].tokens, truth[i].tokens) << "text " << i;
      EXPECT_TRUE(completions[i].logprobs == truth[i].logprobs) << "text " << i;
    }
  };
  for (const InstructionSet isa : SupportedInstructionSets()) {
    SCOPED_TRACE(Name(isa));
    expect_truth(Ask(model, CpuFactory(2, isa), 3, Texts(kTexts)));
    expect_truth(Ask(model, CpuFactory(1, isa), 1, Texts(1)));
  }
  expect_truth(Ask(model, CpuFactory(1, InstructionSet::kAuto), 2, Texts(kTexts)));
}

TEST_P(EveryMethodTest, GoesOnAfterAKillWithTheSameBytes) {
  const QuantizeOptions whole = OptionsOf(GetParam(), "whole_" + FileName());
  ASSERT_TRUE(QuantizeModel(whole, {}).ok());
  const QuantizeOptions killed = OptionsOf(GetParam(), "killed_" + FileName());
  const pid_t child = ::fork();
  if (child == 0) {
    const absl::Status ended = QuantizeModel(killed, [](const LayerDone& done) {
      if (done.layer == 1) ::_exit(42);
    });
    ::_exit(ended.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 42);
  EXPECT_FALSE(fs::exists(killed.out));
  EXPECT_TRUE(fs::exists(killed.out + ".partial"));

  QuantizeOptions other = killed;
  other.damping = 0.02f;
  EXPECT_EQ(QuantizeModel(other, {}).code(), absl::StatusCode::kFailedPrecondition);

  int resumed = 0;
  const absl::Status ended =
      QuantizeModel(killed, [&](const LayerDone& done) { resumed += done.resumed ? 1 : 0; });
  ASSERT_TRUE(ended.ok()) << ended;
  EXPECT_EQ(resumed, 2);
  for (const auto& entry : fs::directory_iterator(whole.out)) {
    const std::string name = entry.path().filename();
    EXPECT_EQ(ReadFile(killed.out + "/" + name), ReadFile(entry.path())) << name;
  }
}

class CalibratedMethodTest : public EveryMethodTest {};

TEST_P(CalibratedMethodTest, ActivationsOnDiskChangeNothing) {
  const QuantizeOptions in_memory = OptionsOf(GetParam(), "memory_" + FileName());
  QuantizeOptions on_disk = OptionsOf(GetParam(), "disk_" + FileName());
  on_disk.memory_bytes = 0;
  ASSERT_TRUE(QuantizeModel(in_memory, {}).ok());
  ASSERT_TRUE(QuantizeModel(on_disk, {}).ok());
  EXPECT_EQ(OpenOrDie(in_memory.out).digest, OpenOrDie(on_disk.out).digest);
  for (const auto& entry : fs::directory_iterator(in_memory.out)) {
    const std::string name = entry.path().filename();
    EXPECT_EQ(ReadFile(on_disk.out + "/" + name), ReadFile(entry.path())) << name;
  }
}

std::string CaseName(const testing::TestParamInfo<Method>& test) {
  std::string name = Name(test.param);
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryMethodTest,
                         testing::Values(Method::kInt8, Method::kInt8Static, Method::kLlmInt8,
                                         Method::kNf4, Method::kAwq, Method::kGptq),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Methods, CalibratedMethodTest,
                         testing::Values(Method::kInt8Static, Method::kAwq, Method::kGptq),
                         CaseName);

void ExpectRefused(const QuantizeOptions& options, const std::string& word) {
  const absl::Status status = QuantizeModel(options, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
  EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  EXPECT_FALSE(fs::exists(options.out));
}

TEST(QuantizeModelTest, WrongOptionsAreRefusedByName) {
  const auto with = [](auto change) {
    QuantizeOptions options = OptionsOf(Method::kGptq, "refused");
    change(options);
    return options;
  };
  ExpectRefused(with([](auto& o) { o.bits = 5; }), "--bits 5");
  ExpectRefused(with([](auto& o) { o.group_size = 48; }), "--group-size 48");
  ExpectRefused(with([](auto& o) { o.damping = 0; }), "--damping 0");
  ExpectRefused(with([](auto& o) { o.samples = 0; }), "--samples 0");
  ExpectRefused(with([](auto& o) { o.calibration = ""; }), "--calibration is missing");
  ExpectRefused(with([](auto& o) { o.sample_tokens = 1000; }), "context is 256");
  ExpectRefused(with([](auto& o) { o.group_size = 128; }), "groups of 128");
  EXPECT_THAT(std::string(ParseMethod("hqq").status().message()), HasSubstr("int8-static"));
}

TEST(QuantizeModelTest, TooLittleTextIsRefusedWithTheNumberNeeded) {
  QuantizeOptions options = OptionsOf(Method::kAwq, "little");
  options.samples = 1000;
  ExpectRefused(options, "need 63000");
  const std::string empty = OutPath("empty.txt");
  WriteFile(empty, "\n\n");
  options.calibration = empty;
  ExpectRefused(options, "has 0 tokens");
  const std::string lines = OutPath("lines.jsonl");
  WriteFile(lines, "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
  options.calibration = lines;
  ExpectRefused(options, "line 2");
}

TEST(QuantizeModelTest, WhatIsQuantizedAlreadyIsRefused) {
  const QuantizeOptions first = OptionsOf(Method::kNf4, "twice");
  ASSERT_TRUE(QuantizeModel(first, {}).ok());
  QuantizeOptions second = OptionsOf(Method::kInt8, "twice_again");
  second.model = first.out;
  ExpectRefused(second, "already quantized as bitsandbytes");
  EXPECT_EQ(QuantizeModel(first, {}).code(), absl::StatusCode::kAlreadyExists);
  const auto twice =
      LocalPipeline::Create(OpenOrDie(first.out).spec, *OpenOrDie(first.out).checkpoint,
                            ReferenceFactory(), {.weight_format = LoadFormat::kInt4});
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("already quantized"));
}

TEST(QuantizeModelTest, ANumberThatIsNotFiniteIsNamedAndNothingIsLeftUnderTheName) {
  const std::string broken = WriteTinyCheckpoint("broken", kShape);
  std::string file = ReadFile(broken + "/model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const auto header = nlohmann::json::parse(file.substr(8, length));
  const uint64_t begin = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0];
  const uint16_t nan = 0x7e00;
  std::memcpy(file.data() + 8 + length + begin + 2 * (3 * 64 + 7), &nan, sizeof nan);
  WriteFile(broken + "/model.safetensors", file);
  for (const Method method : {Method::kInt8, Method::kNf4, Method::kAwq, Method::kGptq}) {
    QuantizeOptions options = OptionsOf(method, std::string("nan_") + Name(method));
    options.model = broken;
    const absl::Status status = QuantizeModel(options, {});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("layers.1.up")) << status;
    EXPECT_FALSE(fs::exists(options.out));
  }
}

}  // namespace
}  // namespace sauva
