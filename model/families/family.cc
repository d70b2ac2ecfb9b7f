#include "model/families/family.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sauva {
namespace {

std::vector<const Family*> AllFamilies() { return {&LlamaFamily()}; }

std::string SupportedText() {
  std::vector<std::string> names;
  for (const Family* family : AllFamilies()) {
    names.insert(names.end(), family->architectures.begin(), family->architectures.end());
  }
  return absl::StrCat("one of ", absl::StrJoin(names, ", "));
}

}  // namespace

absl::StatusOr<ChosenFamily> ChooseFamily(const ConfigReader& config) {
  const std::string key = "architectures";
  const bool is_one_name = config.Has(key) && config.json()[key].is_array() &&
                           config.json()[key].size() == 1 && config.json()[key][0].is_string();
  if (!is_one_name) return config.Unexpected(key, "a list of " + SupportedText());
  const auto name = config.json()[key][0].get<std::string>();
  for (const Family* family : AllFamilies()) {
    for (const std::string& architecture : family->architectures) {
      if (architecture == name) return ChosenFamily{family, architecture};
    }
  }
  return config.Unexpected(key, SupportedText());
}

}  // namespace sauva
