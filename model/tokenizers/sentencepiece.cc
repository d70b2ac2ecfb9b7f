#include "model/tokenizers/sentencepiece.h"

#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/json.h"
#include "model/utf8.h"

namespace sauva {
namespace {

constexpr char kSpaceSymbol[] = "\xE2\x96\x81";  // U+2581, a space inside pieces

absl::StatusOr<std::unique_ptr<PieceModel>> Load(const std::string& serialized,
                                                 PieceModel::Front front) {
  std::string error;
  auto model = PieceModel::Load(serialized, front, error);
  if (model != nullptr) return model;
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.model: not a SentencePiece model: ", error));
}

// "<0x0A>" to the byte.
absl::StatusOr<std::string> ByteOfPiece(const std::string& piece) {
  int byte = 0;
  const bool is_spelled = piece.size() == 6 && piece.starts_with("<0x") && piece[5] == '>';
  if (is_spelled && absl::SimpleHexAtoi(piece.substr(3, 2), &byte)) {
    return std::string(1, static_cast<char>(byte));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.model: byte piece is '", piece, "', expected <0x00> to <0xFF>"));
}

absl::StatusOr<std::string> BytesOf(const PieceModel& model, int id) {
  switch (model.kind(id)) {
    case PieceModel::Kind::kText:
      return absl::StrReplaceAll(model.text(id), {{kSpaceSymbol, " "}});
    case PieceModel::Kind::kByte:
      return ByteOfPiece(model.text(id));
    case PieceModel::Kind::kControl:
    case PieceModel::Kind::kUnknown:
    case PieceModel::Kind::kUnused:
      return "";
  }
  return "";
}

absl::StatusOr<nlohmann::json> ReadConfig(const ModelFiles& files) {
  const auto file = files.find("tokenizer_config.json");
  if (file == files.end()) return nlohmann::json(nlohmann::json::object());
  ASSIGN_OR_RETURN(nlohmann::json config, ParseJson(file->first, file->second));
  if (config.is_object()) return config;
  return absl::InvalidArgumentError("tokenizer_config.json: not an object");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SentencePiece::Create(const ModelFiles& files) {
  const std::string& model = files.at("tokenizer.model");
  ASSIGN_OR_RETURN(const nlohmann::json config, ReadConfig(files));
  ASSIGN_OR_RETURN(Options options, ReadOptions(config));
  ASSIGN_OR_RETURN(auto at_start, Load(model, PieceModel::Front::kAsTheFileSays));
  ASSIGN_OR_RETURN(auto inside, Load(model, PieceModel::Front::kNothing));
  options.puts_space_in_front = at_start->Encode("a") != inside->Encode("a");
  std::vector<AddedToken> added = ControlTokens(*at_start);
  std::set<std::string> known;
  for (const AddedToken& token : added) known.insert(token.content);
  ASSIGN_OR_RETURN(std::vector<AddedToken> configured, ReadAddedTokensDecoder(config));
  for (AddedToken& token : configured) {
    if (!known.contains(token.content)) added.push_back(std::move(token));
  }
  std::unique_ptr<SentencePiece> tokenizer(
      new SentencePiece(std::move(at_start), std::move(inside), added, options));
  RETURN_IF_ERROR(tokenizer->AddPieces(added));
  return tokenizer;
}

absl::StatusOr<SentencePiece::Options> SentencePiece::ReadOptions(const nlohmann::json& config) {
  static const auto* const kClasses =
      new std::set<std::string>{"LlamaTokenizer", "LlamaTokenizerFast",     "CodeLlamaTokenizer",
                                "GemmaTokenizer", "CodeLlamaTokenizerFast", "GemmaTokenizerFast"};
  const ConfigReader reader(config, "tokenizer_config.json: ");
  ASSIGN_OR_RETURN(const std::string type, reader.String("tokenizer_class", "LlamaTokenizer"));
  if (!kClasses->contains(type)) {
    return reader.Unexpected("tokenizer_class", "LlamaTokenizer for a tokenizer.model");
  }
  Options options;
  ASSIGN_OR_RETURN(options.add_bos, reader.Boolean("add_bos_token", true));
  ASSIGN_OR_RETURN(options.add_eos, reader.Boolean("add_eos_token", false));
  ASSIGN_OR_RETURN(options.legacy, reader.Boolean("legacy", false));
  return options;
}

std::vector<AddedToken> SentencePiece::ControlTokens(const PieceModel& model) {
  std::vector<AddedToken> tokens;
  for (int id = 0; id < model.size(); ++id) {
    const PieceModel::Kind kind = model.kind(id);
    if (kind != PieceModel::Kind::kControl && kind != PieceModel::Kind::kUnknown) continue;
    const std::string& content = model.text(id);
    if (content.empty() || content.size() > AddedTokenFinder::kMaxContentBytes) continue;
    tokens.push_back({.id = id, .content = content, .special = true});
  }
  return tokens;
}

SentencePiece::SentencePiece(std::unique_ptr<PieceModel> at_start,
                             std::unique_ptr<PieceModel> inside,
                             std::vector<AddedToken> added_tokens, Options options)
    : at_start_(std::move(at_start)),
      inside_(std::move(inside)),
      added_(added_tokens),
      options_(options) {}

absl::Status SentencePiece::AddPieces(const std::vector<AddedToken>& added_tokens) {
  const int num_pieces = at_start_->size();
  for (int id = 0; id < num_pieces; ++id) {
    ASSIGN_OR_RETURN(std::string bytes, BytesOf(*at_start_, id));
    pieces_.push_back(std::move(bytes));
  }
  for (const AddedToken& token : added_tokens) {
    const auto index = static_cast<size_t>(token.id);
    if (token.id < num_pieces && at_start_->text(token.id) != token.content) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokenizer_config.json: added_tokens_decoder.", token.id, " is '", token.content,
          "', but tokenizer.model has '", at_start_->text(token.id), "' there"));
    }
    if (index >= pieces_.size()) pieces_.resize(index + 1);
    pieces_[index] = token.special ? "" : token.content;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> SentencePiece::Encode(std::string_view text,
                                                           Special special) const {
  if (const auto invalid = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 at byte ", *invalid));
  }
  std::vector<int32_t> tokens;
  const bool adds = special == Special::kAdd;
  if (adds && options_.add_bos && at_start_->bos_id() >= 0) tokens.push_back(at_start_->bos_id());
  for (const AddedTokenPart& part : added_.Find(text)) {
    if (part.token) {
      tokens.push_back(*part.token);
      continue;
    }
    const bool starts = options_.legacy || part.text.data() == text.data();
    const std::vector<int32_t> ids = (starts ? at_start_ : inside_)->Encode(part.text);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  }
  if (adds && options_.add_eos && at_start_->eos_id() >= 0) tokens.push_back(at_start_->eos_id());
  return tokens;
}

std::string SentencePiece::PieceBytes(int32_t token) const {
  if (token < 0 || token >= vocab_size()) return "";
  return pieces_[static_cast<size_t>(token)].value_or("");
}

absl::StatusOr<std::string> SentencePiece::Decode(const std::vector<int32_t>& tokens) const {
  std::string text;
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size() || !pieces_[static_cast<size_t>(token)]) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is not in the vocabulary of ", vocab_size()));
    }
    text += *pieces_[static_cast<size_t>(token)];
  }
  if (DropsLeadingSpace() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}  // namespace sauva
