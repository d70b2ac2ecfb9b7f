#include "model/quantized/layout.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/json.h"

namespace sauva {
namespace {

using Reader = absl::StatusOr<std::unique_ptr<QuantizedLayout>> (*)(const ConfigReader&);

const std::map<std::string, Reader>& Readers() {
  static const auto* const kReaders = new std::map<std::string, Reader>{
      {"awq", &ReadAwqConfig},
      {"gptq", &ReadGptqConfig},
      {"bitsandbytes", &ReadBitsandbytesConfig},
      {"compressed-tensors", &ReadCompressedTensorsConfig},
  };
  return *kReaders;
}

absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadByMethod(const ConfigReader& config,
                                                              const std::string& fallback) {
  ASSIGN_OR_RETURN(const std::string method, config.String("quant_method", fallback));
  const auto found = Readers().find(method);
  if (found != Readers().end()) return found->second(config);
  std::vector<std::string> known;
  for (const auto& [name, reader] : Readers()) known.push_back(name);
  return config.Unexpected("quant_method", "one of " + absl::StrJoin(known, ", "));
}

constexpr size_t kMaxNames = 100'000;

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedLayout>> ReadQuantizedLayout(const ModelFiles& files) {
  const auto read = [&](const std::string& name) -> absl::StatusOr<std::optional<ConfigReader>> {
    const auto file = files.find(name);
    if (file == files.end()) return std::nullopt;
    ASSIGN_OR_RETURN(nlohmann::json json, ParseJson(name, file->second));
    if (!json.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": not an object"));
    }
    return ConfigReader(std::move(json), absl::StrCat(name, ": "));
  };
  ASSIGN_OR_RETURN(const auto config, read("config.json"));
  if (config) {
    ASSIGN_OR_RETURN(const auto quantization, config->Object("quantization_config"));
    if (quantization) return ReadByMethod(*quantization, "");
  }
  ASSIGN_OR_RETURN(const auto gptq, read("quantize_config.json"));
  if (gptq) return ReadByMethod(*gptq, "gptq");
  return nullptr;
}

absl::StatusOr<std::vector<std::string>> ReadNames(const ConfigReader& config,
                                                   const std::string& key) {
  std::vector<std::string> names;
  if (!config.Has(key)) return names;
  const nlohmann::json& list = config.json()[key];
  const bool fits = list.is_array() && list.size() <= kMaxNames &&
                    std::ranges::all_of(list, [](const auto& name) { return name.is_string(); });
  if (!fits) return config.Unexpected(key, "a list of module names");
  for (const auto& name : list) names.push_back(name.template get<std::string>());
  return names;
}

bool IsKept(const std::vector<std::string>& kept, std::string_view module) {
  const std::string dotted = absl::StrCat(".", std::string(module), ".");
  return std::ranges::any_of(kept, [&](const std::string& name) {
    return !name.empty() && dotted.find("." + name + ".") != std::string::npos;
  });
}

}  // namespace sauva
