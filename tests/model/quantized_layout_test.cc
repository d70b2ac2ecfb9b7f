// Readers of published layouts against the packages whose formats they are; the fixtures are
// made by tools/make_quantized_fixtures.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <set>

#include "model/mapped_file.h"
#include "model/quantized/layout.h"
#include "model/safetensors_header.h"
#include "tests/model/tiny_checkpoint.h"

namespace sauva {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// A fixture's tensors, whose bytes a test may change.
struct Fixture {
  json config;
  MatrixSize size;
  QuantizedPart dequantized;
  QuantizedParts parts;
  std::map<std::string, std::string> bytes;  // what the parts point into

  void Change(const std::string& suffix, std::function<void(std::string&)> change) {
    change(bytes.at(suffix));
    parts.by_suffix.at(suffix).bytes = std::as_bytes(std::span(bytes.at(suffix)));
  }
};

Fixture Load(const std::string& name) {
  const std::string path =
      std::string(SAUVA_SOURCE_DIR) + "/tests/golden/quantized/" + name + ".safetensors";
  const std::string file = ReadFile(path);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const json header = json::parse(file.substr(8, length));
  const auto meta = [&](const char* key) {
    return json::parse(header["__metadata__"][key].get<std::string>());
  };
  Fixture fixture;
  fixture.config = meta("quantization_config");
  fixture.size = {meta("shape")[0], meta("shape")[1]};
  fixture.parts.module = "m";
  const auto parsed = ParseSafetensorsHeader(path, std::as_bytes(std::span(file)));
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  for (const SafetensorsEntry& entry : parsed->entries) {
    const std::string key = entry.name == "dequantized" ? entry.name : entry.name.substr(2);
    std::string& bytes = fixture.bytes[key];
    bytes = file.substr(entry.begin, entry.end - entry.begin);
    QuantizedPart part{entry.dtype, entry.shape, {}};
    (key == "dequantized" ? fixture.dequantized : fixture.parts.by_suffix[key]) = part;
  }
  for (auto& [key, part] : fixture.parts.by_suffix) {
    part.bytes = std::as_bytes(std::span(fixture.bytes.at(key)));
  }
  fixture.dequantized.bytes = std::as_bytes(std::span(fixture.bytes.at("dequantized")));
  return fixture;
}

absl::StatusOr<std::unique_ptr<QuantizedLayout>> Layout(const json& config) {
  return ReadQuantizedLayout({{"config.json", json{{"quantization_config", config}}.dump()}});
}

absl::StatusOr<QuantizedMatrix> Read(const Fixture& fixture) {
  auto layout = Layout(fixture.config);
  if (!layout.ok()) return layout.status();
  return (*layout)->Read(fixture.parts, fixture.size, {});
}

// Element [row, column] in f32, by the definitions in kernels/quantized_matrix.h.
std::vector<float> Dequantize(const QuantizedMatrix& matrix) {
  std::vector<float> values(matrix.codes.size());
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t i = 0; i < matrix.columns; ++i) {
      const auto group = static_cast<size_t>(row * matrix.groups() + i / matrix.group_size);
      const int code = matrix.codes[static_cast<size_t>(row * matrix.columns + i)];
      const float value = matrix.kind == CodeKind::kNf4
                              ? kNf4Values[code]
                              : static_cast<float>(code - matrix.zeros[group]);
      const int64_t column =
          matrix.column_order.empty() ? i : matrix.column_order[static_cast<size_t>(i)];
      values[static_cast<size_t>(row * matrix.columns + column)] = value * matrix.scales[group];
    }
  }
  return values;
}

// Rounded to the nearest value with that many bits of significand, ties to even.
float RoundTo(float value, const std::string& dtype) {
  if (dtype == "F32" || value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int least = dtype == "F16" ? std::max(exponent - 11, -24) : exponent - 8;
  return std::ldexp(std::nearbyint(std::ldexp(value, -least)), least);
}

class QuantizedFixtureTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantizedFixtureTest, DequantizesToTheBitAsItsPackageDoes) {
  const Fixture fixture = Load(GetParam());
  EXPECT_TRUE((*Layout(fixture.config))->IsQuantized(fixture.parts));
  const auto matrix = Read(fixture);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->rows, fixture.size.rows);
  EXPECT_EQ(matrix->columns, fixture.size.columns);
  const std::vector<float> values = Dequantize(*matrix);
  std::set<float> distinct;
  for (size_t i = 0; i < values.size(); ++i) {
    const float expected = fixture.dequantized.Float(static_cast<int64_t>(i));
    ASSERT_EQ(RoundTo(values[i], fixture.dequantized.dtype), expected) << "element " << i;
    distinct.insert(expected);
  }
  EXPECT_GT(distinct.size(), 70u);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, QuantizedFixtureTest,
                         testing::Values("bnb_nf4", "bnb_nf4_nested", "bnb_nf4_across_rows",
                                         "bnb_nf4_nested_bf16_storage", "bnb_int8",
                                         "ct_int4_symmetric", "ct_int4_zero_points",
                                         "ct_int3_per_row", "ct_int8_per_row_zeros",
                                         "ct_int8_static", "gptq_int4_zero_wraps", "gptq_v2_int4",
                                         "gptq_int4_symmetric", "gptq_int4_act_order", "gptq_int3",
                                         "gptq_int3_act_order", "gptq_v2_int3", "gptq_int8",
                                         "awq_g32", "awq_g128"),
                         [](const auto& test) { return std::string(test.param); });

TEST(QuantizedLayoutTest, ActOrderBecomesAPermutationOfTheColumns) {
  const auto matrix = Read(Load("gptq_int4_act_order"));
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  std::set<int32_t> columns(matrix->column_order.begin(), matrix->column_order.end());
  EXPECT_EQ(columns.size(), static_cast<size_t>(matrix->columns));
  const auto plain = Read(Load("gptq_v2_int4"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_TRUE(plain->column_order.empty()) << "columns in order need no permutation";
}

TEST(QuantizedLayoutTest, ActivationsFollowTheFormat) {
  const auto llm = Read(Load("bnb_int8"));
  ASSERT_TRUE(llm.ok()) << llm.status();
  EXPECT_EQ(llm->activation, ActivationKind::kLlmInt8);
  EXPECT_EQ(llm->outlier_threshold, 6.0f);
  const auto fixed = Read(Load("ct_int8_static"));
  ASSERT_TRUE(fixed.ok()) << fixed.status();
  EXPECT_EQ(fixed->activation, ActivationKind::kInt8Static);
  EXPECT_EQ(fixed->activation_scale, 0.03125f);
}

TEST(QuantizedLayoutTest, AnUnknownMethodIsRefusedWithTheKnownOnes) {
  const auto layout = Layout({{"quant_method", "hqq"}});
  EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(layout.status().message());
  for (const char* word : {"hqq", "awq", "gptq", "bitsandbytes", "compressed-tensors"}) {
    EXPECT_THAT(message, HasSubstr(word));
  }
}

TEST(QuantizedLayoutTest, GptqsOwnConfigFileIsReadToo) {
  const auto layout =
      ReadQuantizedLayout({{"config.json", "{}"}, {"quantize_config.json", R"({"bits": 3})"}});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ((*layout)->method(), "gptq");
  const auto none = ReadQuantizedLayout({{"config.json", "{}"}});
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(*none, nullptr);
}

void ExpectConfigRefused(const std::string& name, const std::string& key, const json& value) {
  json config = Load(name).config;
  config[json::json_pointer(key)] = value;
  const auto layout = Layout(config);
  EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument) << key;
  const std::string last = key.substr(key.rfind('/') + 1);
  EXPECT_THAT(std::string(layout.status().message()), HasSubstr(last));
}

TEST(QuantizedLayoutTest, ConfigsBeyondWhatIsReadAreRefusedByTheirKey) {
  ExpectConfigRefused("awq_g32", "/bits", 8);
  ExpectConfigRefused("awq_g32", "/version", "gemv");
  ExpectConfigRefused("awq_g32", "/group_size", 0);
  ExpectConfigRefused("awq_g32", "/modules_to_not_convert", "lm_head");
  ExpectConfigRefused("gptq_int3", "/bits", 2);
  ExpectConfigRefused("gptq_int3", "/checkpoint_format", "marlin");
  ExpectConfigRefused("gptq_int3", "/group_size", -2);
  ExpectConfigRefused("bnb_int8", "/llm_int8_threshold", -1);
  ExpectConfigRefused("ct_int4_symmetric", "/config_groups/group_0/weights/num_bits", 5);
  ExpectConfigRefused("ct_int4_symmetric", "/config_groups/group_0/weights/type", "float");
  ExpectConfigRefused("ct_int4_symmetric", "/config_groups", {{"a", {}}, {"b", {}}});
  ExpectConfigRefused("ct_int8_static", "/config_groups/group_0/input_activations/num_bits", 4);
}

void ExpectRefused(const Fixture& fixture, const std::string& word) {
  const auto matrix = Read(fixture);
  EXPECT_EQ(matrix.status().code(), absl::StatusCode::kInvalidArgument) << word;
  EXPECT_THAT(std::string(matrix.status().message()), HasSubstr(word));
}

TEST(QuantizedLayoutTest, AMissingMisshapenOrMistypedTensorIsNamed) {
  for (const char* name : {"awq_g32", "gptq_int3_act_order", "bnb_nf4_nested", "bnb_int8",
                           "ct_int4_zero_points", "ct_int8_static"}) {
    const Fixture whole = Load(name);
    for (const auto& [suffix, part] : whole.parts.by_suffix) {
      // These mark a matrix as quantized, or may be absent.
      if (suffix == "qweight" || suffix == "weight.absmax" || suffix == "SCB") continue;
      if (suffix == "g_idx" || suffix == "weight_format") continue;
      Fixture fixture = Load(name);
      fixture.parts.by_suffix.erase(suffix);
      ExpectRefused(fixture, suffix);
    }
    for (const auto& [suffix, part] : whole.parts.by_suffix) {
      if (suffix == "weight_format" || suffix == "weight_zero_point") continue;
      if (suffix.find("quant_state") != std::string::npos) continue;
      Fixture fixture = Load(name);
      QuantizedPart& wrong = fixture.parts.by_suffix.at(suffix);
      wrong.shape.push_back(1);
      wrong.bytes = {};
      ExpectRefused(fixture, suffix);
    }
  }
}

TEST(QuantizedLayoutTest, ScalesOfZeroSubnormalOrNotFiniteAreNamed) {
  const auto set_scale = [](uint16_t bits) {
    return [bits](std::string& bytes) { std::memcpy(bytes.data() + 4, &bits, sizeof bits); };
  };
  for (const char* name : {"awq_g32", "gptq_int3"}) {
    Fixture fixture = Load(name);
    fixture.Change("scales", set_scale(0));
    ExpectRefused(fixture, "the scale of row 2, group 0 is 0");
    fixture.Change("scales", set_scale(0x7c00));
    ExpectRefused(fixture, "not finite");
    fixture.Change("scales", set_scale(0x7e00));
    ExpectRefused(fixture, "not finite");
    fixture.Change("scales", set_scale(0x8400));
    ExpectRefused(fixture, "negative");
    fixture.Change("scales", set_scale(1));  // subnormal as f16, but a number all the same
    EXPECT_TRUE(Read(fixture).ok());
  }
  Fixture fixture = Load("bnb_int8");
  fixture.Change("SCB", [](std::string& bytes) {
    const float tiny = 1e-40f;
    std::memcpy(bytes.data(), &tiny, sizeof tiny);
  });
  ExpectRefused(fixture, "subnormal");
}

TEST(QuantizedLayoutTest, AnInt8RowOfZerosMayHaveAScaleOfZeroAndNoOtherMay) {
  Fixture fixture = Load("bnb_int8");
  const auto columns = static_cast<size_t>(fixture.size.columns);
  fixture.Change("SCB", [](std::string& bytes) { std::memset(bytes.data(), 0, sizeof(float)); });
  ExpectRefused(fixture, "the scale of row 0, group 0 is 0");
  fixture.Change("weight", [&](std::string& bytes) { std::memset(bytes.data(), 0, columns); });
  const auto matrix = Read(fixture);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  const std::vector<float> values = Dequantize(*matrix);
  for (size_t i = 0; i < columns; ++i) EXPECT_EQ(values[i], 0.0f);
  EXPECT_NE(values[columns], 0.0f);
}

TEST(QuantizedLayoutTest, AnNf4BlockOfZerosHasAScaleOfZero) {
  Fixture fixture = Load("bnb_nf4");
  fixture.Change("weight.absmax", [](std::string& bytes) { std::memset(bytes.data(), 0, 4); });
  const auto matrix = Read(fixture);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->scales[0], 0.0f);
  fixture.Change("weight.absmax", [](std::string& bytes) {
    const float wrong = std::nanf("");
    std::memcpy(bytes.data(), &wrong, sizeof wrong);
  });
  ExpectRefused(fixture, "not finite");
}

TEST(QuantizedLayoutTest, GroupsOfColumnsMustBeWhole) {
  Fixture fixture = Load("gptq_int4_act_order");
  fixture.Change("g_idx", [](std::string& bytes) { bytes[0] = 3; });
  ExpectRefused(fixture, "is of group 3; there are 3");
  fixture = Load("gptq_int4_act_order");
  fixture.Change("g_idx", [](std::string& bytes) { bytes[0] = bytes[0] == 0 ? 1 : 0; });
  ExpectRefused(fixture, "does not have the 64 columns");
}

TEST(QuantizedLayoutTest, AnotherCodeThanNf4IsRefused) {
  Fixture fixture = Load("bnb_nf4");
  fixture.Change("weight.quant_map", [](std::string& bytes) { bytes[2] ^= 1; });
  ExpectRefused(fixture, "not NF4's");
  fixture = Load("bnb_nf4");
  auto state = fixture.parts.by_suffix.extract("weight.quant_state.bitsandbytes__nf4");
  state.key() = "weight.quant_state.bitsandbytes__fp4";
  fixture.parts.by_suffix.insert(std::move(state));
  ExpectRefused(fixture, "fp4");
}

TEST(QuantizedLayoutTest, KeptModulesAreMatchedByWholeParts) {
  EXPECT_TRUE(IsKept({"lm_head"}, "lm_head"));
  EXPECT_TRUE(IsKept({"q_proj"}, "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(IsKept({"layers.1.mlp"}, "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(IsKept({"layers.1"}, "model.layers.11.mlp.up_proj"));
  EXPECT_FALSE(IsKept({"proj"}, "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(IsKept({""}, "lm_head"));
  EXPECT_FALSE(IsKept({"re:.*"}, "lm_head"));
}

}  // namespace
}  // namespace sauva
