#include <utility>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "model/json.h"
#include "model/tokenizer.h"
#include "model/tokenizers/byte_level_bpe.h"
#include "model/tokenizers/sentencepiece.h"
#include "model/tokenizers/tokenizer_json.h"

namespace sauva {
namespace {

// A SentencePiece vocabulary, too, may come as a tokenizer.json beside its own file.
bool DecodesByteLevel(const nlohmann::json& root) {
  const auto decoder = root.is_object() ? root.find("decoder") : root.end();
  return decoder != root.end() && decoder->is_object() && decoder->contains("type") &&
         (*decoder)["type"] == "ByteLevel";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const ModelFiles& files) {
  const bool has_sentencepiece = files.contains("tokenizer.model");
  const auto json_file = files.find("tokenizer.json");
  if (json_file != files.end()) {
    ASSIGN_OR_RETURN(nlohmann::json root, ParseJson(json_file->first, json_file->second));
    if (!has_sentencepiece || DecodesByteLevel(root)) {
      ASSIGN_OR_RETURN(ByteLevelBpeParts parts, ReadTokenizerJson(std::move(root)));
      return ByteLevelBpe::Create(std::move(parts));
    }
  }
  if (has_sentencepiece) return SentencePiece::Create(files);
  if (files.contains("vocab.json") && files.contains("merges.txt")) {
    ASSIGN_OR_RETURN(ByteLevelBpeParts parts, ReadVocabularyAndMerges(files));
    return ByteLevelBpe::Create(std::move(parts));
  }
  return absl::NotFoundError(
      "the model has no tokenizer: neither tokenizer.json, tokenizer.model, nor vocab.json with "
      "merges.txt");
}

}  // namespace sauva
