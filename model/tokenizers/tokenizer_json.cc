#include "model/tokenizers/tokenizer_json.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/families/family.h"
#include "model/json.h"

namespace sauva {
namespace {

using nlohmann::json;

constexpr int kMaxProcessorDepth = 8;
constexpr size_t kMaxProcessorTokens = 64;

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", what));
}

// Takes a member out of an object; null if it is not there.
json Take(json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? json() : std::move(*found);
}

absl::Status ReadVocabulary(const json& vocab, ByteLevelBpeParts& parts) {
  if (!vocab.is_object() || vocab.empty()) return Bad("model.vocab is not an object with tokens");
  parts.vocabulary.reserve(vocab.size());
  for (const auto& [spelling, id] : vocab.items()) {
    const bool is_id = id.is_number_integer() && id >= 0 && id < kMaxVocabSize;
    if (!is_id) {
      return Bad(absl::StrCat("model.vocab gives '", spelling, "' the id ", ShortText(id),
                              ", expected 0 to ", kMaxVocabSize - 1));
    }
    parts.vocabulary[spelling] = id.get<int32_t>();
  }
  return absl::OkStatus();
}

// Left and right of one merge, "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ReadPair(const json& merge) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  return Bad(
      absl::StrCat("model.merges has ", ShortText(merge), ", expected \"a b\" or [\"a\", \"b\"]"));
}

absl::Status ReadMerges(const json& merges, ByteLevelBpeParts& parts) {
  if (!merges.is_array()) return Bad("model.merges is not a list");
  const auto find = [&](const std::string& token) -> absl::StatusOr<int32_t> {
    const auto found = parts.vocabulary.find(token);
    if (found != parts.vocabulary.end()) return found->second;
    return Bad(absl::StrCat("model.merges needs '", token, "', which is not in model.vocab"));
  };
  for (const json& merge : merges) {
    ASSIGN_OR_RETURN(const auto pair, ReadPair(merge));
    ASSIGN_OR_RETURN(const int32_t left, find(pair.first));
    ASSIGN_OR_RETURN(const int32_t right, find(pair.second));
    ASSIGN_OR_RETURN(const int32_t merged, find(pair.first + pair.second));
    parts.merger.Add(left, right, merged);
  }
  return absl::OkStatus();
}

absl::Status ReadModel(json model, ByteLevelBpeParts& parts) {
  if (!model.is_object()) return Bad("model is not an object");
  RETURN_IF_ERROR(ReadVocabulary(Take(model, "vocab"), parts));
  RETURN_IF_ERROR(ReadMerges(Take(model, "merges"), parts));
  model.erase("vocab");
  model.erase("merges");
  const ConfigReader reader(std::move(model), "tokenizer.json: model.");
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", "BPE"));
  if (type != "BPE") return reader.Unexpected("type", "BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string affix, reader.String(key, ""));
    if (!affix.empty()) return reader.Unexpected(key, "an empty string; others are unsupported");
  }
  if (reader.Has("dropout") && reader.json()["dropout"] != 0.0) {
    return reader.Unexpected("dropout", "null; tokens must not be drawn at random");
  }
  for (const char* key : {"byte_fallback", "fuse_unk"}) {
    ASSIGN_OR_RETURN(const bool flag, reader.Boolean(key, false));
    if (flag) return reader.Unexpected(key, "false, the only one supported for byte-level BPE");
  }
  ASSIGN_OR_RETURN(parts.ignore_merges, reader.Boolean("ignore_merges", false));
  ASSIGN_OR_RETURN(const std::string unknown, reader.String("unk_token", ""));
  const auto found = parts.vocabulary.find(unknown);
  if (found != parts.vocabulary.end()) parts.unknown_token = found->second;
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const json& list, ByteLevelBpeParts& parts) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return Bad("added_tokens is not a list");
  for (size_t i = 0; i < list.size(); ++i) {
    ASSIGN_OR_RETURN(
        AddedToken token,
        ReadAddedToken(list[i], absl::StrCat("tokenizer.json: added_tokens[", i, "]")));
    parts.added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// Ids of a special token of a template.
absl::Status AddTemplateToken(const json& section, const json& name, std::vector<int32_t>& out) {
  const json* ids = nullptr;
  const auto tokens = section.find("special_tokens");
  if (tokens != section.end() && tokens->is_object() && name.is_string()) {
    const auto token = tokens->find(name.get_ref<const std::string&>());
    if (token != tokens->end() && token->is_object() && token->contains("ids")) {
      ids = &(*token)["ids"];
    }
  }
  if (ids == nullptr || !ids->is_array() || out.size() + ids->size() > kMaxProcessorTokens) {
    return Bad(absl::StrCat("post_processor has no ids for ", ShortText(name)));
  }
  for (const json& id : *ids) {
    if (!id.is_number_integer() || id < 0 || id >= kMaxVocabSize) {
      return Bad(absl::StrCat("post_processor has the id ", ShortText(id)));
    }
    out.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::Status ReadTemplate(const json& section, ByteLevelBpeParts& parts) {
  const auto single = section.find("single");
  if (single == section.end() || !single->is_array()) {
    return Bad("post_processor.single is not a list");
  }
  std::vector<int32_t> front;
  std::vector<int32_t> back;
  int num_texts = 0;
  for (const json& element : *single) {
    const bool is_known = element.is_object() && element.size() == 1 && element.front().is_object();
    if (is_known && element.contains("Sequence")) {
      ++num_texts;
    } else if (is_known && element.contains("SpecialToken") && element.front().contains("id")) {
      RETURN_IF_ERROR(
          AddTemplateToken(section, element.front()["id"], num_texts == 0 ? front : back));
    } else {
      return Bad("post_processor.single has an element that is no Sequence and no SpecialToken");
    }
  }
  if (num_texts != 1) return Bad("post_processor.single must have the text exactly once");
  // Processors come one around the other.
  parts.front.insert(parts.front.begin(), front.begin(), front.end());
  parts.back.insert(parts.back.end(), back.begin(), back.end());
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const json& section, int depth, ByteLevelBpeParts& parts) {
  if (section.is_null()) return absl::OkStatus();
  if (!section.is_object() || depth > kMaxProcessorDepth) {
    return Bad(absl::StrCat("post_processor must be an object, nested at most ", kMaxProcessorDepth,
                            " deep"));
  }
  const ConfigReader reader(section, "tokenizer.json: post_processor.");
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "ByteLevel") return absl::OkStatus();  // only moves offsets
  if (type == "TemplateProcessing") return ReadTemplate(section, parts);
  if (type != "Sequence") {
    return reader.Unexpected("type", "ByteLevel, TemplateProcessing or Sequence");
  }
  const auto list = section.find("processors");
  if (list == section.end() || !list->is_array()) return reader.Unexpected("processors", "a list");
  for (const json& element : *list) {
    RETURN_IF_ERROR(ReadPostProcessor(element, depth + 1, parts));
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const json& section) {
  if (section.is_object() && section.contains("type") && section["type"] == "ByteLevel") {
    return absl::OkStatus();
  }
  const json type = section.is_object() && section.contains("type") ? section["type"] : json();
  return Bad(absl::StrCat("decoder is ", ShortText(type),
                          ", expected ByteLevel; only byte-level BPE is supported"));
}

}  // namespace

absl::StatusOr<ByteLevelBpeParts> ReadTokenizerJson(json root) {
  if (!root.is_object()) return Bad("not an object");
  RETURN_IF_ERROR(CheckDecoder(Take(root, "decoder")));
  ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(Take(root, "pre_tokenizer")));
  ByteLevelBpeParts parts{.pre_tokenizer = std::move(pre_tokenizer)};
  ASSIGN_OR_RETURN(parts.normalizer, ReadNormalizer(Take(root, "normalizer")));
  RETURN_IF_ERROR(ReadModel(Take(root, "model"), parts));
  RETURN_IF_ERROR(ReadAddedTokens(Take(root, "added_tokens"), parts));
  RETURN_IF_ERROR(ReadPostProcessor(Take(root, "post_processor"), 0, parts));
  return parts;
}

}  // namespace sauva
