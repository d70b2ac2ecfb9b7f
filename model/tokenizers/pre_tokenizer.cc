#include "model/tokenizers/pre_tokenizer.h"

#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/utf8.h"

namespace sauva {
namespace {

constexpr int kMaxDepth = 8;
constexpr size_t kMaxSteps = 64;

// Source: openai/gpt-2, src/encoder.py.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr char kWhere[] = "tokenizer.json: pre_tokenizer.";

ConfigReader Reader(const nlohmann::json& section) { return ConfigReader(section, kWhere); }

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const nlohmann::json& section) {
  PreTokenizer result;
  RETURN_IF_ERROR(result.AddSection(section, 0));
  if (result.has_byte_level_) return result;
  return absl::InvalidArgumentError(
      "tokenizer.json: pre_tokenizer has no ByteLevel; only byte-level BPE is supported");
}

absl::Status PreTokenizer::AddSection(const nlohmann::json& section, int depth) {
  if (!section.is_object() || depth > kMaxDepth || steps_.size() >= kMaxSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json: pre_tokenizer must be an object of at most ", kMaxSteps,
                     " steps, nested at most ", kMaxDepth, " deep"));
  }
  if (has_byte_level_) {
    return absl::InvalidArgumentError(
        "tokenizer.json: pre_tokenizer has a step after ByteLevel, which must be the last");
  }
  const ConfigReader reader = Reader(section);
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "ByteLevel") return AddByteLevel(section);
  if (type == "Split") return AddSplit(section);
  if (type == "Digits") return AddDigits(section);
  if (type != "Sequence") {
    return reader.Unexpected("type", "ByteLevel, Split, Digits or Sequence");
  }
  const auto list = section.find("pretokenizers");
  if (list == section.end() || !list->is_array()) {
    return reader.Unexpected("pretokenizers", "a list");
  }
  for (const nlohmann::json& element : *list) RETURN_IF_ERROR(AddSection(element, depth + 1));
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddByteLevel(const nlohmann::json& section) {
  const ConfigReader reader = Reader(section);
  has_byte_level_ = true;
  ASSIGN_OR_RETURN(adds_prefix_space_, reader.Boolean("add_prefix_space", false));
  if (adds_prefix_space_ && !steps_.empty()) {
    return reader.Unexpected("add_prefix_space", "false after a step that cuts the text");
  }
  ASSIGN_OR_RETURN(const bool use_regex, reader.Boolean("use_regex", true));
  if (!use_regex) return absl::OkStatus();
  ASSIGN_OR_RETURN(Regex regex, Regex::Compile(kGpt2Pattern, Regex::Syntax::kPattern));
  steps_.push_back({.regex = std::move(regex), .behavior = Behavior::kIsolated});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddSplit(const nlohmann::json& section) {
  const ConfigReader reader = Reader(section);
  const auto pattern = section.find("pattern");
  const bool has_one = pattern != section.end() && pattern->is_object() && pattern->size() == 1 &&
                       pattern->front().is_string() &&
                       (pattern->contains("Regex") || pattern->contains("String"));
  if (!has_one) return reader.Unexpected("pattern", "{\"Regex\": …} or {\"String\": …}");
  const auto syntax =
      pattern->contains("Regex") ? Regex::Syntax::kPattern : Regex::Syntax::kLiteral;
  auto regex = Regex::Compile(pattern->front().get<std::string>(), syntax);
  if (!regex.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(kWhere, "pattern: ", regex.status().message()));
  }
  ASSIGN_OR_RETURN(const Behavior behavior, ReadBehavior(section));
  ASSIGN_OR_RETURN(const bool inverted, reader.Boolean("invert", false));
  steps_.push_back({*std::move(regex), behavior, inverted});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddDigits(const nlohmann::json& section) {
  ASSIGN_OR_RETURN(const bool individual, Reader(section).Boolean("individual_digits", false));
  ASSIGN_OR_RETURN(Regex regex, Regex::Compile("\\p{N}", Regex::Syntax::kPattern));
  steps_.push_back({.regex = std::move(regex),
                    .behavior = individual ? Behavior::kIsolated : Behavior::kContiguous});
  return absl::OkStatus();
}

absl::StatusOr<PreTokenizer::Behavior> PreTokenizer::ReadBehavior(const nlohmann::json& section) {
  static const auto* const kByName =
      new std::map<std::string, Behavior>{{"Isolated", Behavior::kIsolated},
                                          {"Removed", Behavior::kRemoved},
                                          {"MergedWithPrevious", Behavior::kMergedWithPrevious},
                                          {"MergedWithNext", Behavior::kMergedWithNext},
                                          {"Contiguous", Behavior::kContiguous}};
  const ConfigReader reader = Reader(section);
  ASSIGN_OR_RETURN(const std::string name, reader.String("behavior", ""));
  const auto found = kByName->find(name);
  if (found != kByName->end()) return found->second;
  return reader.Unexpected("behavior",
                           "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

absl::StatusOr<std::vector<std::string_view>> PreTokenizer::Split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  RegexSearch search;
  for (const Step& step : steps_) {
    std::vector<std::string_view> next;
    for (const std::string_view piece : pieces) {
      ASSIGN_OR_RETURN(const std::vector<Part> parts, Cut(step, piece, search));
      Join(step.behavior, parts, next);
    }
    pieces = std::move(next);
  }
  return pieces;
}

absl::StatusOr<std::vector<PreTokenizer::Part>> PreTokenizer::Cut(const Step& step,
                                                                  std::string_view text,
                                                                  RegexSearch& search) {
  std::vector<Part> parts;
  const auto add = [&](size_t begin, size_t end, bool matched) {
    if (begin < end) parts.push_back({text.substr(begin, end - begin), matched != step.inverted});
  };
  size_t done = 0;
  size_t from = 0;
  while (from < text.size()) {
    ASSIGN_OR_RETURN(const auto match, search.Next(step.regex, text, from));
    if (!match) break;
    if (match->end <= from) {  // empty: goes on at the next character
      from += FirstCharacter(text.substr(from)).length;
      continue;
    }
    // A match may start before `from` only by \K; what is done stays done.
    const size_t begin = match->begin < done ? done : match->begin;
    add(done, begin, false);
    add(begin, match->end, true);
    done = from = match->end;
  }
  add(done, text.size(), false);
  return parts;
}

void PreTokenizer::Join(Behavior behavior, const std::vector<Part>& parts,
                        std::vector<std::string_view>& pieces) {
  const auto extend = [&](std::string_view with) {
    pieces.back() = std::string_view(pieces.back().data(), pieces.back().size() + with.size());
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool is_match = parts[i].is_match;
    const bool has_previous = i > 0;
    const bool previous_is_match = has_previous && parts[i - 1].is_match;
    if (behavior == Behavior::kRemoved && is_match) continue;
    const bool joins =
        (behavior == Behavior::kMergedWithPrevious && has_previous && is_match &&
         !previous_is_match) ||
        (behavior == Behavior::kMergedWithNext && previous_is_match && !is_match) ||
        (behavior == Behavior::kContiguous && has_previous && is_match == previous_is_match);
    if (joins) {
      extend(parts[i].text);
    } else {
      pieces.push_back(parts[i].text);
    }
  }
}

}  // namespace sauva
