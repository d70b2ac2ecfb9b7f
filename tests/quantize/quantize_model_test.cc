// Whole models through every method: what is written opens, gives the same tokens however it
// is computed, survives a kill, and wrong inputs are refused by name.
#include "quantize/quantize_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "engine/stage.h"
#include "model/model.h"
#include "quantize/calibration_record.h"
#include "quantize/output.h"
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

// A format that is written.
struct Format {
  Method method = Method::kInt8;
  int bits = 4;
  bool act_order = false;
  bool symmetric = true;
};

std::string NameOf(const Format& format) {
  std::string name = Name(format.method);
  if (format.method == Method::kGptq) name += std::to_string(format.bits);
  if (format.act_order) name += "_act_order";
  if (!format.symmetric) name += "_zero_points";
  std::ranges::replace(name, '-', '_');
  return name;
}

class EveryMethodTest : public testing::TestWithParam<Format> {
 protected:
  static QuantizeOptions OptionsIn(const std::string& purpose) {
    QuantizeOptions options = OptionsOf(GetParam().method, purpose + "_" + NameOf(GetParam()));
    options.bits = GetParam().bits;
    options.act_order = GetParam().act_order;
    options.symmetric = GetParam().symmetric;
    return options;
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

// The estimate is by headers. Scales of f32 that all fit f16 are held so; zero points that are
// all in the middle, and an order that leaves the columns as they are, not at all; each tensor
// is rounded up to 64 bytes.
void ExpectLoadedBytesAsEstimated(const Model& model) {
  auto pipeline = LocalPipeline::Create(model.spec, *model.checkpoint,
                                        CpuFactory(1, InstructionSet::kAuto), {});
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  int64_t estimate = EstimateHeadBytes(model.spec, *model.checkpoint, LoadFormat::kStored);
  int64_t spared = 0;
  int64_t tensors = 2;
  for (int layer = 0; layer < model.spec.num_layers(); ++layer) {
    estimate += EstimateLayerBytes(model.spec, *model.checkpoint, layer, LoadFormat::kStored);
    tensors += 9;
    for (const std::string& name : model.checkpoint->Names()) {
      const auto outline = model.checkpoint->FindQuantized(name);
      if (layer == 0 && outline) {
        const int64_t groups = (outline->columns + outline->group_size - 1) / outline->group_size;
        const int64_t most = (outline->half_scales ? 0 : 2) + (outline->zero_points ? 1 : 0);
        spared += outline->rows * groups * most + (outline->act_order ? outline->columns * 4 : 0);
      }
    }
  }
  const int64_t loaded = (*pipeline)->weight_bytes();
  EXPECT_LE(loaded, estimate + tensors * 64);
  EXPECT_GE(loaded, estimate - spared);
}

TEST_P(EveryMethodTest, WritesAModelWhoseTokensDependOnNothingElse) {
  const QuantizeOptions options = OptionsIn("same");
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

  ExpectLoadedBytesAsEstimated(model);
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
    for (const int stages : {1, 2, 3}) {
      for (const int batch : {1, kTexts}) {
        SCOPED_TRACE(testing::Message() << Name(isa) << ", " << stages << " stages, " << batch);
        expect_truth(Ask(model, CpuFactory(1 + stages % 2, isa), stages, Texts(batch)));
      }
    }
  }
}

// Runs the job in a process of its own that may write files of no more than 4 KiB once the
// first layer is done, which ends it by a signal in the middle of a write, or where that is
// ignored as a full disk does. Returns how it ended.
int QuantizeWithALimit(const QuantizeOptions& options, void (*on_limit)(int),
                       const std::string& message_file) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, on_limit);
    const absl::Status ended = QuantizeModel(options, [](const LayerDone&) {
      const rlimit limit = {4096, 4096};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    });
    WriteFile(message_file, std::string(ended.message()));
    ::_exit(static_cast<int>(ended.code()));
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST_P(EveryMethodTest, AKillOrAFullDiskInMidWriteLeavesNoCheckpointAndIsGoneOnFrom) {
  const QuantizeOptions options = OptionsIn("cut");
  const std::string message = OutPath("message.txt");
  const int full = QuantizeWithALimit(options, SIG_IGN, message);
  ASSERT_TRUE(WIFEXITED(full));
  EXPECT_EQ(WEXITSTATUS(full), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(ReadFile(message), HasSubstr("model-00002-of-00004.safetensors.tmp"));
  EXPECT_FALSE(fs::exists(options.out));

  const int killed = QuantizeWithALimit(options, SIG_DFL, message);
  ASSERT_TRUE(WIFSIGNALED(killed));
  EXPECT_EQ(WTERMSIG(killed), SIGXFSZ);
  EXPECT_FALSE(fs::exists(options.out));
  EXPECT_TRUE(fs::exists(options.out + ".partial/model-00002-of-00004.safetensors.tmp"));

  int resumed = 0;
  const absl::Status ended =
      QuantizeModel(options, [&](const LayerDone& done) { resumed += done.resumed ? 1 : 0; });
  ASSERT_TRUE(ended.ok()) << ended;
  EXPECT_EQ(resumed, 1);
  for (const auto& entry : fs::directory_iterator(options.out)) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
  EXPECT_NE(OpenOrDie(options.out).quantization, "");
}

// The path is the same, what is in the file is not.
void ExpectAnotherTextIsNotGoneOnWith(const QuantizeOptions& job) {
  const std::string text = ReadFile(job.calibration);
  WriteFile(job.calibration, std::string(text.rbegin(), text.rend()));
  const absl::Status status = QuantizeModel(job, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("calibration_text"));
  WriteFile(job.calibration, text);
}

TEST_P(EveryMethodTest, GoesOnAfterAKillWithTheSameBytes) {
  QuantizeOptions whole = OptionsIn("whole");
  whole.sample_tokens = 128;  // long enough to leave a record
  ASSERT_TRUE(QuantizeModel(whole, {}).ok());
  QuantizeOptions killed = OptionsIn("killed");
  killed.sample_tokens = whole.sample_tokens;
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
  if (NeedsCalibration(killed.method)) ExpectAnotherTextIsNotGoneOnWith(killed);

  int resumed = 0;
  const absl::Status ended =
      QuantizeModel(killed, [&](const LayerDone& done) { resumed += done.resumed ? 1 : 0; });
  ASSERT_TRUE(ended.ok()) << ended;
  EXPECT_EQ(resumed, 2);
  const auto files = [](const std::string& path) {
    return std::distance(fs::directory_iterator(path), fs::directory_iterator());
  };
  EXPECT_EQ(files(killed.out), files(whole.out));
  for (const auto& entry : fs::directory_iterator(whole.out)) {
    const std::string name = entry.path().filename();
    EXPECT_EQ(ReadFile(killed.out + "/" + name), ReadFile(entry.path())) << name;
  }
}

TEST_P(EveryMethodTest, KeepsARecordOfTheTextItWasCalibratedOn) {
  QuantizeOptions options = OptionsIn("record");
  options.sample_tokens = 128;
  ASSERT_TRUE(QuantizeModel(options, {}).ok());
  const auto record = CalibrationRecord::Read(options.out);
  ASSERT_TRUE(record.ok()) << record.status();
  ASSERT_EQ(record->has_value(), NeedsCalibration(options.method));
  if (!record->has_value()) return;
  EXPECT_GE((*record)->num_windows(), options.samples / 2);
  EXPECT_EQ((*record)->CountIn(ReadFile(options.calibration)), (*record)->num_windows());
  EXPECT_EQ((*record)->CountIn(ReadFile(Source() + "/tokenizer.json")), 0);
}

class CalibratedMethodTest : public EveryMethodTest {};

TEST_P(CalibratedMethodTest, ActivationsOnDiskChangeNothing) {
  const QuantizeOptions in_memory = OptionsIn("memory");
  QuantizeOptions on_disk = OptionsIn("disk");
  on_disk.memory_bytes = 0;
  ASSERT_TRUE(QuantizeModel(in_memory, {}).ok());
  ASSERT_TRUE(QuantizeModel(on_disk, {}).ok());
  EXPECT_EQ(OpenOrDie(in_memory.out).digest, OpenOrDie(on_disk.out).digest);
  for (const auto& entry : fs::directory_iterator(in_memory.out)) {
    const std::string name = entry.path().filename();
    EXPECT_EQ(ReadFile(on_disk.out + "/" + name), ReadFile(entry.path())) << name;
  }
}

std::string CaseName(const testing::TestParamInfo<Format>& test) { return NameOf(test.param); }

constexpr Format kGptqWithAll = {.method = Method::kGptq, .act_order = true, .symmetric = false};

INSTANTIATE_TEST_SUITE_P(Methods, EveryMethodTest,
                         testing::Values(Format{Method::kInt8}, Format{Method::kInt8Static},
                                         Format{Method::kLlmInt8}, Format{Method::kNf4},
                                         Format{Method::kAwq}, Format{Method::kGptq},
                                         Format{Method::kGptq, 3}, kGptqWithAll),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Methods, CalibratedMethodTest,
                         testing::Values(Format{Method::kInt8Static}, Format{Method::kAwq},
                                         Format{Method::kGptq}),
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

TEST(QuantizeModelTest, TooLittleRoomIsRefusedWithTheBytesNeededAndFree) {
  const std::string directory = fs::path(Source()).parent_path();
  EXPECT_TRUE(CheckRoom(directory, 1).ok());
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const absl::Status status = CheckRoom(directory, kMost);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr(directory));
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(kMost)));
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
