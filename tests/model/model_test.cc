#include "model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "model/expected_tensors.h"
#include "model/tensor_names.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void Change(const std::string& directory, const std::string& key, const nlohmann::json& value) {
  auto config = nlohmann::json::parse(ReadFile(directory + "/config.json"));
  config[key] = value;
  WriteFile(directory + "/config.json", config.dump());
}

TEST(ModelTest, OpensEveryElementTypeAndAnyNumberOfShards) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int num_shards : {1, 2, 5}) {
      const std::string directory =
          WriteTinyCheckpoint("tiny", {.dtype = dtype, .num_shards = num_shards});
      const auto model = OpenModel(directory);
      ASSERT_TRUE(model.ok()) << model.status();
      const auto tensor = model->checkpoint->Find(tensor_names::Layer(1, "self.k"));
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(tensor->dtype, dtype);
      EXPECT_EQ(tensor->shape, (std::vector<int64_t>{16, 32}));
      EXPECT_EQ(tensor->bytes.size(), 16u * 32u * static_cast<size_t>(SizeOf(dtype)));
    }
  }
}

TEST(ModelTest, ShardingChangesNoTensor) {
  const auto single = OpenModel(WriteTinyCheckpoint("tiny", {.tied_head = false}));
  const auto sharded =
      OpenModel(WriteTinyCheckpoint("tiny", {.tied_head = false, .num_shards = 3}));
  ASSERT_TRUE(single.ok()) << single.status();
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  EXPECT_EQ(single->checkpoint->Names(), sharded->checkpoint->Names());
  for (const std::string& name : single->checkpoint->Names()) {
    const auto left = single->checkpoint->Find(name);
    const auto right = sharded->checkpoint->Find(name);
    EXPECT_TRUE(std::ranges::equal(left->bytes, right->bytes)) << name;
  }
}

TEST(ModelTest, ReadsTheSpec) {
  const auto model = OpenModel(WriteTinyCheckpoint("tiny-llama", {}));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->name, "tiny-llama");
  const ModelSpec& spec = model->spec;
  EXPECT_EQ(spec.family, "LlamaForCausalLM");
  EXPECT_EQ(spec.num_layers(), 2);
  EXPECT_EQ(spec.hidden_size, 32);
  EXPECT_EQ(spec.vocab_size, 260);
  EXPECT_EQ(spec.max_context, 128);
  EXPECT_TRUE(spec.tied_head);
  EXPECT_EQ(spec.eos_tokens, (std::vector<int32_t>{257}));
  EXPECT_EQ(spec.bos_token, 256);
  const LayerSpec& layer = spec.decoder.layers[1];
  EXPECT_EQ(layer.self_attention.num_heads, 4);
  EXPECT_EQ(layer.self_attention.num_kv_heads, 2);
  EXPECT_EQ(layer.self_attention.head_dim, 8);
  EXPECT_FLOAT_EQ(layer.self_attention.score_scale, 0.35355338f);
  EXPECT_EQ(layer.self_attention.rope->rotary_dims, 8);
  EXPECT_EQ(layer.feed_forward.intermediate_size, 48);
  EXPECT_FLOAT_EQ(layer.norm.epsilon, 1e-5f);
}

TEST(ModelTest, HasExactlyTheExpectedTensors) {
  const auto model = OpenModel(WriteTinyCheckpoint("tiny", {.attention_bias = true}));
  ASSERT_TRUE(model.ok()) << model.status();
  const auto expected = ExpectedTensors(model->spec);
  // Embedding and final norm, and per layer two norms, seven matrices and four biases.
  EXPECT_EQ(expected.size(), 2u + 2u * 13u);
  EXPECT_EQ(model->checkpoint->Names().size(), expected.size());
}

TEST(ModelTest, NamesADirectoryThatDoesNotExist) {
  const auto model = OpenModel("/nowhere/llama");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("/nowhere/llama"));
}

TEST(ModelTest, NamesATensorThatIsMissing) {
  const std::string directory = WriteTinyCheckpoint("tiny", {});
  Change(directory, "num_hidden_layers", 3);
  const auto model = OpenModel(directory);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()),
              AllOf(HasSubstr("layers.2.attention_norm.gain"), HasSubstr("missing")));
}

TEST(ModelTest, NamesATensorOfAnotherShape) {
  const std::string directory = WriteTinyCheckpoint("tiny", {});
  Change(directory, "intermediate_size", 49);
  const auto model = OpenModel(directory);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()),
              AllOf(HasSubstr("model.layers.0.mlp.gate_proj.weight"), HasSubstr("[48, 32]"),
                    HasSubstr("[49, 32]")));
}

TEST(ModelTest, NamesAWeightOfAnElementTypeItCannotUse) {
  const std::string directory = WriteTinyCheckpoint("tiny", {});
  const std::string path = directory + "/model.safetensors";
  std::string bytes = ReadFile(path);
  const size_t tensor = bytes.find("\"model.norm.weight\"");
  // I32 has the size of F32, so that only the type is wrong.
  bytes.replace(bytes.find("\"F32\"", tensor), 5, "\"I32\"");
  WriteFile(path, bytes);
  const auto model = OpenModel(directory);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()),
              AllOf(HasSubstr("model.norm.weight"), HasSubstr("has dtype I32"),
                    HasSubstr("F32, F16 or BF16")));
}

TEST(ModelTest, DigestFollowsConfigTokenizerAndHeadersButNotThePath) {
  const auto digest = [](const std::string& directory) { return OpenModel(directory)->digest; };
  const std::string one = WriteTinyCheckpoint("one", {});
  const std::string original = digest(one);
  EXPECT_EQ(original.size(), 64u);
  EXPECT_EQ(digest(WriteTinyCheckpoint("two", {})), original);
  EXPECT_NE(digest(WriteTinyCheckpoint("one", {.dtype = DType::kF16})), original);
  EXPECT_NE(digest(WriteTinyCheckpoint("one", {.num_shards = 2})), original);

  Change(one, "rope_theta", 10001.0);
  EXPECT_NE(digest(one), original);
  const std::string two = WriteTinyCheckpoint("two", {});
  WriteFile(two + "/tokenizer.json", ReadFile(two + "/tokenizer.json") + "\n");
  EXPECT_NE(digest(two), original);
}

TEST(ModelTest, DescribesSpecTensorsAndBytes) {
  const auto model = OpenModel(WriteTinyCheckpoint("tiny", {.dtype = DType::kF16}));
  ASSERT_TRUE(model.ok()) << model.status();
  const nlohmann::json json = DescribeJson(*model);
  EXPECT_EQ(json["spec"]["kv_heads"], 2);
  EXPECT_EQ(json["tensors"].size(), 2u + 2u * 9u);
  EXPECT_EQ(json["bytes"], json["parameters"].get<int64_t>() * 2);
  EXPECT_THAT(Describe(*model), AllOf(HasSubstr(model->digest), HasSubstr("layers.1.down"),
                                      HasSubstr("[32, 48]"), Not(HasSubstr("layers.2"))));
}

TEST(ModelTest, OpensWhatTransformersWrites) {
  const std::string golden = SAUVA_SOURCE_DIR "/tests/golden/";
  const auto nested = OpenModel(golden + "tiny_llama");
  ASSERT_TRUE(nested.ok()) << nested.status();
  EXPECT_FALSE(nested->spec.tied_head);
  EXPECT_EQ(nested->checkpoint->Find(tensor_names::kHead)->dtype, DType::kBF16);
  const auto scaled = OpenModel(golden + "tiny_llama3_rope");
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  EXPECT_TRUE(scaled->spec.tied_head);
  EXPECT_EQ(scaled->spec.decoder.layers[0].self_attention.head_dim, 24);
  EXPECT_EQ(scaled->spec.decoder.layers[0].self_attention.rope->llama3->original_max_position, 64);
}

TEST(ModelTest, OpensATrainedCheckpointFromElsewhere) {
  const char* shared = std::getenv("SAUVA_SHARED_DATA");
  if (shared == nullptr) GTEST_SKIP() << "SAUVA_SHARED_DATA is not set";
  const std::string directory = std::string(shared) + "/weights/stories260K";
  if (!std::filesystem::exists(directory)) GTEST_SKIP() << directory << " is absent";
  const auto model = OpenModel(directory + "/");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->name, "stories260K");
  EXPECT_EQ(model->spec.num_layers(), 5);
  EXPECT_EQ(model->spec.eos_tokens, (std::vector<int32_t>{2}));
}

}  // namespace
}  // namespace sauva
