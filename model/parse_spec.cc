#include "model/parse_spec.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json.h"

namespace sauva {
namespace {

constexpr size_t kMaxConfigBytes = 4 << 20;
constexpr size_t kMaxEosTokens = 64;

absl::StatusOr<ConfigReader> ReadConfig(const ModelFiles& files, const std::string& name) {
  const auto file = files.find(name);
  if (file == files.end()) return absl::NotFoundError(absl::StrCat(name, ": missing"));
  if (file->second.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": has ", file->second.size(), " bytes, limit ", kMaxConfigBytes));
  }
  ASSIGN_OR_RETURN(nlohmann::json json, ParseJson(name, file->second));
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(name, ": not an object"));
  return ConfigReader(std::move(json), absl::StrCat(name, ": "));
}

bool IsToken(const nlohmann::json& value, int vocab_size) {
  return value.is_number_integer() && value >= 0 && value < vocab_size;
}

absl::StatusOr<std::vector<int32_t>> ReadEosTokens(const ConfigReader& config, int vocab_size) {
  const std::string key = "eos_token_id";
  const nlohmann::json& value = config.json()[key];
  const nlohmann::json list = value.is_array() ? value : nlohmann::json::array({value});
  std::vector<int32_t> tokens;
  for (const nlohmann::json& token : list) {
    if (!IsToken(token, vocab_size) || tokens.size() == kMaxEosTokens) {
      return config.Unexpected(key, absl::StrCat("a token id below vocab_size ", vocab_size,
                                                 ", or a list of at most ", kMaxEosTokens));
    }
    tokens.push_back(token.get<int32_t>());
  }
  return tokens;
}

// What this file says of special tokens replaces what was known before.
absl::Status ReadSpecialTokens(const ConfigReader& config, ModelSpec& spec) {
  if (config.Has("eos_token_id")) {
    ASSIGN_OR_RETURN(spec.eos_tokens, ReadEosTokens(config, spec.vocab_size));
  }
  if (config.Has("bos_token_id")) {
    ASSIGN_OR_RETURN(spec.bos_token, config.Integer("bos_token_id", {0, spec.vocab_size - 1}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSpec> ParseSpec(const ModelFiles& files) {
  ASSIGN_OR_RETURN(const ConfigReader config, ReadConfig(files, "config.json"));
  ASSIGN_OR_RETURN(const ChosenFamily chosen, ChooseFamily(config));
  ASSIGN_OR_RETURN(ModelSpec spec, chosen.family->read_spec(config, chosen.architecture));
  RETURN_IF_ERROR(ReadSpecialTokens(config, spec));
  // Generation follows generation_config.json where there is one, as in transformers.
  if (files.contains("generation_config.json")) {
    ASSIGN_OR_RETURN(const ConfigReader generation, ReadConfig(files, "generation_config.json"));
    RETURN_IF_ERROR(ReadSpecialTokens(generation, spec));
  }
  return spec;
}

absl::StatusOr<const Family*> FamilyOf(const ModelFiles& files) {
  ASSIGN_OR_RETURN(const ConfigReader config, ReadConfig(files, "config.json"));
  ASSIGN_OR_RETURN(const ChosenFamily chosen, ChooseFamily(config));
  return chosen.family;
}

}  // namespace sauva
