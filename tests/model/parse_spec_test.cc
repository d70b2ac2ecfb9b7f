#include "model/parse_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace sauva {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},
          {"intermediate_size", 172},
          {"num_hidden_layers", 5},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 4},
          {"vocab_size", 512},
          {"max_position_embeddings", 512}};
}

json With(const std::string& key, const json& value) {
  json config = Config();
  config[key] = value;
  return config;
}

absl::StatusOr<ModelSpec> Parse(const json& config) {
  return ParseSpec({{"config.json", config.dump()}});
}

const AttentionSpec& Attention(const ModelSpec& spec) {
  return spec.decoder.layers.front().self_attention;
}

void ExpectRefused(const json& config, const std::string& key, const std::string& found) {
  const auto spec = Parse(config);
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << key << " " << found;
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr(key));
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr(found));
}

TEST(ParseSpecTest, FillsInWhatTransformersLeavesOut) {
  json config = Config();
  config.erase("num_key_value_heads");
  const auto spec = Parse(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(Attention(*spec).num_kv_heads, 8);
  EXPECT_EQ(Attention(*spec).head_dim, 8);
  EXPECT_FLOAT_EQ(Attention(*spec).rope->theta, 10000);
  EXPECT_FLOAT_EQ(spec->decoder.final_norm.epsilon, 1e-6f);
  EXPECT_FALSE(spec->tied_head);
  EXPECT_TRUE(spec->eos_tokens.empty());
  EXPECT_FALSE(spec->bos_token.has_value());
}

TEST(ParseSpecTest, TakesAHeadDimThatIsNotTheQuotient) {
  const auto spec = Parse(With("head_dim", 32));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(Attention(*spec).head_dim, 32);
  EXPECT_EQ(Attention(*spec).rope->rotary_dims, 32);
}

TEST(ParseSpecTest, ReadsBiases) {
  json config = With("attention_bias", true);
  config["mlp_bias"] = true;
  const auto spec = Parse(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(Attention(*spec).qkv_bias);
  EXPECT_TRUE(Attention(*spec).out_bias);
  EXPECT_TRUE(spec->decoder.layers[4].feed_forward.bias);
}

const json kLlama3 = {{"rope_type", "llama3"},
                      {"factor", 32.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 8192}};

TEST(ParseSpecTest, ReadsLlama3ScalingInEverySpelling) {
  json old_key = kLlama3;
  old_key["type"] = "llama3";
  old_key.erase("rope_type");
  json nested = kLlama3;
  nested["rope_theta"] = 500000.0;
  json with_scaling = With("rope_scaling", kLlama3);
  with_scaling["rope_theta"] = 500000;
  json with_old_key = With("rope_scaling", old_key);
  with_old_key["rope_theta"] = 500000;
  for (const json& config : {with_scaling, with_old_key, With("rope_parameters", nested)}) {
    const auto spec = Parse(config);
    ASSERT_TRUE(spec.ok()) << spec.status();
    const RopeSpec& rope = *Attention(*spec).rope;
    EXPECT_FLOAT_EQ(rope.theta, 500000);
    EXPECT_FLOAT_EQ(rope.linear_factor, 1);
    ASSERT_TRUE(rope.llama3.has_value());
    EXPECT_FLOAT_EQ(rope.llama3->factor, 32);
    EXPECT_FLOAT_EQ(rope.llama3->low_freq_factor, 1);
    EXPECT_FLOAT_EQ(rope.llama3->high_freq_factor, 4);
    EXPECT_EQ(rope.llama3->original_max_position, 8192);
  }
}

TEST(ParseSpecTest, ReadsLinearAndDefaultScaling) {
  const auto linear = Parse(With("rope_scaling", {{"type", "linear"}, {"factor", 4.0}}));
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_FLOAT_EQ(Attention(*linear).rope->linear_factor, 4);
  const auto plain =
      Parse(With("rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FLOAT_EQ(Attention(*plain).rope->theta, 1e6f);
  EXPECT_FALSE(Attention(*plain).rope->llama3.has_value());
  EXPECT_TRUE(Parse(With("rope_scaling", nullptr)).ok());
}

TEST(ParseSpecTest, RefusesOtherScalingsByName) {
  ExpectRefused(With("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}),
                "rope_scaling.rope_type", "yarn");
  ExpectRefused(With("rope_scaling", {{"type", "dynamic"}, {"factor", 4.0}}), "rope_scaling.type",
                "dynamic");
  ExpectRefused(With("rope_scaling", {{"type", "linear"}}), "rope_scaling.factor", "missing");
  ExpectRefused(With("rope_scaling", 3), "rope_scaling", "3");
  json twisted = kLlama3;
  twisted["high_freq_factor"] = 1.0;
  ExpectRefused(With("rope_scaling", twisted), "high_freq_factor", "more than low_freq_factor");
}

TEST(ParseSpecTest, ReadsQwen2AsABiasAndMistralAsNoWindow) {
  json qwen = With("architectures", {"Qwen2ForCausalLM"});
  qwen["use_sliding_window"] = false;
  qwen["sliding_window"] = 100;
  const auto qwen_spec = Parse(qwen);
  ASSERT_TRUE(qwen_spec.ok()) << qwen_spec.status();
  EXPECT_TRUE(Attention(*qwen_spec).qkv_bias);
  EXPECT_FALSE(Attention(*qwen_spec).out_bias);
  qwen["use_sliding_window"] = true;
  ExpectRefused(qwen, "use_sliding_window", "true");

  json mistral = With("architectures", {"MistralForCausalLM"});
  EXPECT_TRUE(Parse(mistral).ok());
  mistral["sliding_window"] = nullptr;
  EXPECT_TRUE(Parse(mistral).ok());
  mistral["sliding_window"] = 511;
  ExpectRefused(mistral, "sliding_window", "511");
}

TEST(ParseSpecTest, NamesSupportedArchitectures) {
  ExpectRefused(With("architectures", {"GPT2LMHeadModel"}), "GPT2LMHeadModel", "LlamaForCausalLM");
  ExpectRefused(With("architectures", json::array()), "architectures", "Qwen2ForCausalLM");
  ExpectRefused(With("architectures", "LlamaForCausalLM"), "architectures", "a list");
  json config = Config();
  config.erase("architectures");
  ExpectRefused(config, "architectures", "missing");
}

TEST(ParseSpecTest, RefusesAbsurdSizesNamingKeyValueAndLimit) {
  const std::vector<std::pair<std::string, int64_t>> too_large = {
      {"hidden_size", 1048577},      {"intermediate_size", 4194305},
      {"num_hidden_layers", 1001},   {"num_attention_heads", 4097},
      {"num_key_value_heads", 4097}, {"head_dim", 4097},
      {"vocab_size", 4194305},       {"max_position_embeddings", 100000001}};
  for (const auto& [key, above] : too_large) {
    ExpectRefused(With(key, above), key, std::to_string(above));
    ExpectRefused(With(key, above), key, std::to_string(above - 1));  // the limit
    for (const json& absurd : {json(0), json(-1), json(1.5), json("8"), json(1e300), json(true),
                               json(~uint64_t{0}), json(INT64_MIN), json::array()}) {
      ExpectRefused(With(key, absurd), key, absurd.dump());
    }
  }
}

TEST(ParseSpecTest, NamesAMissingSize) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size",
                          "num_attention_heads", "max_position_embeddings"}) {
    json config = Config();
    config.erase(key);
    ExpectRefused(config, key, "missing");
  }
}

TEST(ParseSpecTest, RefusesHeadsThatDoNotDivide) {
  ExpectRefused(With("num_key_value_heads", 3), "num_key_value_heads", "3");
  ExpectRefused(With("num_attention_heads", 12), "num_attention_heads", "12");
  ExpectRefused(With("num_attention_heads", 128), "num_attention_heads", "128");
}

TEST(ParseSpecTest, RefusesOddRotaryDims) {
  ExpectRefused(With("head_dim", 7), "rotary dims", "7");
  ExpectRefused(With("head_dim", 1), "rotary dims", "1");
  ExpectRefused(With("partial_rotary_factor", 0.4), "partial_rotary_factor", "3 rotary dims");
  const auto half = Parse(With("partial_rotary_factor", 0.5));
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ(Attention(*half).rope->rotary_dims, 4);
}

TEST(ParseSpecTest, RefusesFloatsThatAreNotFiniteOrOutOfRange) {
  ExpectRefused(With("rms_norm_eps", -1e-5), "rms_norm_eps", "-1e-05");
  ExpectRefused(With("rms_norm_eps", 2), "rms_norm_eps", "2");
  ExpectRefused(With("rope_theta", 0.5), "rope_theta", "0.5");
  ExpectRefused(With("rope_theta", 1e300), "rope_theta", "1e+300");
  ExpectRefused(With("rope_theta", "NaN"), "rope_theta", "NaN");
  // JSON has no infinity and no NaN, though Python writes them.
  for (const char* number : {"1e999", "NaN", "Infinity"}) {
    std::string text = With("rope_theta", 31337).dump();
    text.replace(text.find("31337"), 5, number);
    EXPECT_EQ(ParseSpec({{"config.json", text}}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(ParseSpecTest, RefusesUnknownActivationsByName) {
  ExpectRefused(With("hidden_act", "mish"), "hidden_act", "mish");
  EXPECT_EQ(
      Parse(With("hidden_act", "gelu_pytorch_tanh"))->decoder.layers[0].feed_forward.activation,
      Activation::kGeluTanh);
}

TEST(ParseSpecTest, ReadsOneOrSeveralEndTokens) {
  EXPECT_EQ(Parse(With("eos_token_id", 2))->eos_tokens, (std::vector<int32_t>{2}));
  EXPECT_EQ(Parse(With("eos_token_id", {2, 5}))->eos_tokens, (std::vector<int32_t>{2, 5}));
  EXPECT_TRUE(Parse(With("eos_token_id", nullptr))->eos_tokens.empty());
  ExpectRefused(With("eos_token_id", 512), "eos_token_id", "vocab_size 512");
  ExpectRefused(With("eos_token_id", -1), "eos_token_id", "-1");
  ExpectRefused(With("eos_token_id", {1, "2"}), "eos_token_id", "\"2\"");
  ExpectRefused(With("bos_token_id", 512), "bos_token_id", "512");
}

TEST(ParseSpecTest, GenerationConfigOverridesSpecialTokens) {
  json config = With("eos_token_id", 2);
  config["bos_token_id"] = 1;
  const auto spec = ParseSpec(
      {{"config.json", config.dump()}, {"generation_config.json", R"({"eos_token_id":[3,4]})"}});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->eos_tokens, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(spec->bos_token, 1);
}

TEST(ParseSpecTest, RefusesWhatIsNotAConfig) {
  for (const char* text : {"", "{", "[]", "7", "null", "\xff", "{\"a\":}"}) {
    const auto status = ParseSpec({{"config.json", text}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  }
  const auto deep = ParseSpec({{"config.json", std::string(1'000'000, '[')}}).status();
  EXPECT_THAT(std::string(deep.message()), HasSubstr("nests deeper than 64"));
  const auto large = ParseSpec({{"config.json", std::string(5'000'000, ' ')}}).status();
  EXPECT_THAT(std::string(large.message()), HasSubstr("limit 4194304"));
  EXPECT_EQ(ParseSpec({}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sauva
