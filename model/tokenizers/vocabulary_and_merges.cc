#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/json.h"
#include "model/tokenizers/tokenizer_json.h"

namespace sauva {
namespace {

using nlohmann::json;

// Source: huggingface/transformers, models/qwen2/tokenization_qwen2.py.
constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}

json Qwen2PreTokenizer() {
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kQwen2Pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", json::array({split, ByteLevel(false)})}};
}

absl::StatusOr<json> ReadConfig(const ModelFiles& files) {
  const auto file = files.find("tokenizer_config.json");
  if (file == files.end()) return json(json::object());
  ASSIGN_OR_RETURN(json config, ParseJson(file->first, file->second));
  if (config.is_object()) return config;
  return absl::InvalidArgumentError("tokenizer_config.json: not an object");
}

json ReadMergeLines(const std::string& text) {
  json merges = json::array();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const bool is_version = merges.empty() && line.starts_with("#version");
    if (!line.empty() && !is_version) merges.push_back(std::move(line));
  }
  return merges;
}

}  // namespace

absl::StatusOr<ByteLevelBpeParts> ReadVocabularyAndMerges(const ModelFiles& files) {
  ASSIGN_OR_RETURN(const json config_json, ReadConfig(files));
  const ConfigReader config(config_json, "tokenizer_config.json: ");
  ASSIGN_OR_RETURN(const std::string type, config.String("tokenizer_class", "GPT2Tokenizer"));
  const bool is_qwen2 = type == "Qwen2Tokenizer" || type == "Qwen2TokenizerFast";
  if (!is_qwen2 && type != "GPT2Tokenizer" && type != "GPT2TokenizerFast") {
    return config.Unexpected("tokenizer_class", "GPT2Tokenizer or Qwen2Tokenizer for vocab.json");
  }
  for (const char* key : {"add_bos_token", "add_prefix_space"}) {
    ASSIGN_OR_RETURN(const bool flag, config.Boolean(key, false));
    if (flag) return config.Unexpected(key, "false; use a tokenizer.json");
  }
  ASSIGN_OR_RETURN(json vocab, ParseJson("vocab.json", files.at("vocab.json")));
  json model = {{"type", "BPE"}};
  model["vocab"] = std::move(vocab);
  model["merges"] = ReadMergeLines(files.at("merges.txt"));
  json root = {{"decoder", ByteLevel(true)},
               {"pre_tokenizer", is_qwen2 ? Qwen2PreTokenizer() : ByteLevel(true)},
               {"normalizer", is_qwen2 ? json{{"type", "NFC"}} : json()}};
  root["model"] = std::move(model);
  ASSIGN_OR_RETURN(ByteLevelBpeParts parts, ReadTokenizerJson(std::move(root)));
  ASSIGN_OR_RETURN(parts.added_tokens, ReadAddedTokensDecoder(config_json));
  return parts;
}

}  // namespace sauva
