#include "tests/model/tiny_checkpoint.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "base/check.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using nlohmann::json;

struct NamedShape {
  std::string name;
  std::vector<int64_t> shape;
};

// SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // Uniform in [-1, 1).
  float Next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    mixed ^= mixed >> 31;
    return static_cast<float>(mixed >> 40) / static_cast<float>(1 << 23) - 1.0f;
  }

 private:
  uint64_t state_;
};

std::vector<NamedShape> LayerShapes(const TinyCheckpoint& shape, int layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const int64_t hidden = shape.hidden_size;
  const int64_t q_size = int64_t{shape.num_heads} * shape.head_dim;
  const int64_t kv_size = int64_t{shape.num_kv_heads} * shape.head_dim;
  std::vector<NamedShape> shapes = {
      {prefix + "input_layernorm.weight", {hidden}},
      {prefix + "self_attn.q_proj.weight", {q_size, hidden}},
      {prefix + "self_attn.k_proj.weight", {kv_size, hidden}},
      {prefix + "self_attn.v_proj.weight", {kv_size, hidden}},
      {prefix + "self_attn.o_proj.weight", {hidden, q_size}},
      {prefix + "post_attention_layernorm.weight", {hidden}},
      {prefix + "mlp.gate_proj.weight", {shape.intermediate_size, hidden}},
      {prefix + "mlp.up_proj.weight", {shape.intermediate_size, hidden}},
      {prefix + "mlp.down_proj.weight", {hidden, shape.intermediate_size}},
  };
  if (shape.attention_bias) {
    shapes.push_back({prefix + "self_attn.q_proj.bias", {q_size}});
    shapes.push_back({prefix + "self_attn.k_proj.bias", {kv_size}});
    shapes.push_back({prefix + "self_attn.v_proj.bias", {kv_size}});
    shapes.push_back({prefix + "self_attn.o_proj.bias", {hidden}});
  }
  return shapes;
}

std::vector<NamedShape> AllShapes(const TinyCheckpoint& shape) {
  const int64_t hidden = shape.hidden_size;
  std::vector<NamedShape> shapes = {{"model.embed_tokens.weight", {shape.vocab_size, hidden}}};
  for (int i = 0; i < shape.num_layers; ++i) {
    for (NamedShape& tensor : LayerShapes(shape, i)) shapes.push_back(std::move(tensor));
  }
  shapes.push_back({"model.norm.weight", {hidden}});
  if (!shape.tied_head) shapes.push_back({"lm_head.weight", {shape.vocab_size, hidden}});
  return shapes;
}

// Rounds to nearest even. What would be subnormal in f16 becomes zero.
uint16_t ToF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const int exponent = static_cast<int>((bits >> 23) & 0xff) - 127 + 15;
  if (exponent <= 0) return static_cast<uint16_t>(sign);
  Check(exponent < 30, "tiny weights fit in f16");
  const uint32_t magnitude = static_cast<uint32_t>(exponent) << 23 | (bits & 0x7fffff);
  return static_cast<uint16_t>(sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13));
}

uint16_t ToBF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void AppendElement(std::string& out, DType dtype, float value) {
  if (dtype == DType::kF32) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return;
  }
  const uint16_t half = dtype == DType::kF16 ? ToF16(value) : ToBF16(value);
  out.append(reinterpret_cast<const char*>(&half), sizeof(half));
}

std::string RandomTensor(const NamedShape& tensor, DType dtype, Random& random) {
  int64_t count = 1;
  for (const int64_t dimension : tensor.shape) count *= dimension;
  const bool is_gain = tensor.name.find("norm") != std::string::npos;
  const bool is_matrix = tensor.shape.size() == 2 && tensor.name != "model.embed_tokens.weight";
  // A sum of `in` products with uniform weights of this scale has about unit variance.
  const float scale = is_matrix ? std::sqrt(3.0f / static_cast<float>(tensor.shape[1])) : 1.0f;
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) {
    const float value = random.Next();
    AppendElement(bytes, dtype, is_gain ? 1.0f + 0.2f * value : scale * value);
  }
  return bytes;
}

const char* FormatName(DType dtype) {
  Check(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16,
        "a tiny checkpoint has float weights");
  return dtype == DType::kF32 ? "F32" : dtype == DType::kF16 ? "F16" : "BF16";
}

struct Shard {
  json header = json::object();
  std::string data;
};

void WriteWeights(const std::string& directory, const TinyCheckpoint& shape) {
  Random random(shape.seed);
  std::vector<Shard> shards(static_cast<size_t>(shape.num_shards));
  json weight_map = json::object();
  const auto file_name = [&](size_t shard) {
    if (shards.size() == 1) return std::string("model.safetensors");
    return "model-" + std::to_string(shard + 1) + "-of-" + std::to_string(shards.size()) +
           ".safetensors";
  };
  size_t next = 0;
  for (const NamedShape& tensor : AllShapes(shape)) {
    Shard& shard = shards[next];
    const size_t begin = shard.data.size();
    shard.data += RandomTensor(tensor, shape.dtype, random);
    shard.header[tensor.name] = {{"dtype", FormatName(shape.dtype)},
                                 {"shape", tensor.shape},
                                 {"data_offsets", {begin, shard.data.size()}}};
    weight_map[tensor.name] = file_name(next);
    next = (next + 1) % shards.size();
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    WriteFile(directory + "/" + file_name(i),
              SafetensorsBytes(shards[i].header.dump(), shards[i].data));
  }
  if (shards.size() == 1) return;
  WriteFile(directory + "/model.safetensors.index.json",
            json{{"metadata", json::object()}, {"weight_map", weight_map}}.dump());
}

void WriteConfig(const std::string& directory, const TinyCheckpoint& shape) {
  json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"hidden_size", shape.hidden_size},
                 {"intermediate_size", shape.intermediate_size},
                 {"num_hidden_layers", shape.num_layers},
                 {"num_attention_heads", shape.num_heads},
                 {"num_key_value_heads", shape.num_kv_heads},
                 {"head_dim", shape.head_dim},
                 {"vocab_size", shape.vocab_size},
                 {"max_position_embeddings", shape.max_context},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"hidden_act", "silu"},
                 {"attention_bias", shape.attention_bias},
                 {"tie_word_embeddings", shape.tied_head},
                 {"bos_token_id", 256}};
  if (shape.vocab_size > 257) config["eos_token_id"] = 257;
  WriteFile(directory + "/config.json", config.dump(1));
}

std::string Utf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3f))};
}

// GPT-2's order: bytes that print come first and stand for themselves, the others are the
// characters from U+0100 on.
json ByteVocabulary() {
  json vocab = json::object();
  int id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    if (prints) vocab[Utf8(byte)] = id++;
  }
  for (int i = 0; id < 256; ++i) vocab[Utf8(0x100 + i)] = id++;
  return vocab;
}

json AddedToken(int id, const std::string& content) {
  return {{"id", id},        {"content", content}, {"special", true},    {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
}

void WriteTokenizer(const std::string& directory, const TinyCheckpoint& shape) {
  json added = json::array({AddedToken(256, "<s>")});
  if (shape.vocab_size > 257) added.push_back(AddedToken(257, "</s>"));
  const json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json bos_tokens = {{"id", "<s>"}, {"ids", {256}}, {"tokens", {"<s>"}}};
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", json::array({bos, text})},
        {"special_tokens", {{"<s>", bos_tokens}}}}},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", ByteVocabulary()}, {"merges", json::array()}}}};
  WriteFile(directory + "/tokenizer.json", tokenizer.dump());
}

}  // namespace

std::string WriteTinyCheckpoint(const std::string& name, const TinyCheckpoint& shape) {
  Check(shape.vocab_size >= 257, "a tiny vocabulary holds the bytes and a BOS");
  static std::deque<TemporaryDirectory> directories;  // removed when the process ends
  const std::string directory = directories.emplace_back().path() + "/" + name;
  std::filesystem::create_directory(directory);
  WriteConfig(directory, shape);
  WriteTokenizer(directory, shape);
  WriteWeights(directory, shape);
  return directory;
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  Check(file.good(), "a test can write its files");
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  Check(file.good(), "a test can read its files");
  return content.str();
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

}  // namespace sauva
