#include "model/tokenizers/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/utf8.h"

namespace sauva {
namespace {

// No character below it changes or joins another under NFC.
constexpr uint32_t kFirstCombining = 0x300;

bool IsPlain(std::string_view text) {
  // U+0300 begins with the byte CC; smaller characters begin with smaller ones.
  static_assert(kFirstCombining == 0x300);
  return std::all_of(text.begin(), text.end(),
                     [](char byte) { return static_cast<uint8_t>(byte) < 0xcc; });
}

void AppendDecomposed(uint32_t code_point, std::vector<utf8proc_int32_t>& out) {
  std::array<utf8proc_int32_t, 32> parts = {};
  int boundary_class = 0;
  const auto count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(), parts.size(),
                              UTF8PROC_DECOMPOSE, &boundary_class);
  Check(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()),
        "a character decomposes into few");
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

auto CombiningClass(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Sorts each run of combining marks by class. utf8proc's own ordering takes quadratic time
// on long runs, which a text could be made of.
void OrderMarks(std::vector<utf8proc_int32_t>& characters) {
  auto begin = characters.begin();
  while (begin != characters.end()) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, characters.end(), [](auto c) { return CombiningClass(c) == 0; });
    std::stable_sort(begin, end, [](auto left, auto right) {
      return CombiningClass(left) < CombiningClass(right);
    });
    begin = end;
  }
}

}  // namespace

absl::StatusOr<Normalizer> ReadNormalizer(const nlohmann::json& section) {
  if (section.is_null()) return Normalizer::kNone;
  if (!section.is_object()) {
    return absl::InvalidArgumentError("tokenizer.json: normalizer must be an object or null");
  }
  const ConfigReader reader(section, "tokenizer.json: normalizer.");
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "NFC") return Normalizer::kNfc;
  if (type != "Sequence") return reader.Unexpected("type", "NFC, a Sequence of it, or none");
  const auto list = section.find("normalizers");
  if (list == section.end() || !list->is_array() || list->size() > 1) {
    return reader.Unexpected("normalizers", "a list of at most one NFC");
  }
  if (list->empty()) return Normalizer::kNone;
  return ReadNormalizer(list->front());
}

std::string ToNfc(std::string_view text) {
  if (IsPlain(text)) return std::string(text);
  std::vector<utf8proc_int32_t> characters;
  for (size_t offset = 0; offset < text.size();) {
    const Utf8Character character = FirstCharacter(text.substr(offset));
    Check(character.kind == Utf8Character::Kind::kValid, "text to normalize is valid UTF-8");
    AppendDecomposed(character.code_point, characters);
    offset += character.length;
  }
  OrderMarks(characters);
  const auto count =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  Check(count >= 0, "decomposed characters can be composed");
  std::string result;
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<uint32_t>(characters[static_cast<size_t>(i)]), result);
  }
  return result;
}

}  // namespace sauva
