#include "quantize/calibration.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "model/json.h"
#include "model/mapped_file.h"

namespace sauva {
namespace {

absl::StatusOr<std::vector<std::string>> SplitTexts(const std::string& path,
                                                    std::string_view content) {
  std::vector<std::string> texts;
  const absl::string_view all(content.data(), content.size());
  if (!path.ends_with(".jsonl")) {
    for (const absl::string_view part : absl::StrSplit(all, "\n\n", absl::SkipWhitespace())) {
      texts.push_back(absl::StrCat(part, "\n\n"));
    }
    return texts;
  }
  int line_number = 0;
  for (const absl::string_view line : absl::StrSplit(all, '\n')) {
    ++line_number;
    if (line.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    const std::string where = absl::StrCat(path, " line ", line_number);
    ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(where, {line.data(), line.size()}));
    const auto text = json.is_object() ? json.find("text") : json.end();
    if (text == json.end() || !text->is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": has no string under 'text'"));
    }
    texts.push_back(text->get<std::string>());
  }
  return texts;
}

}  // namespace

absl::StatusOr<Calibration> ReadCalibration(const Model& model, const QuantizeOptions& options) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(options.calibration));
  ASSIGN_OR_RETURN(
      const std::vector<std::string> texts,
      SplitTexts(options.calibration,
                 {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, MakeTokenizer(model.files));
  std::vector<TokenId> tokens;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                     tokenizer->Encode(text, Tokenizer::Special::kNone));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  }
  const bool bos = model.spec.bos_token.has_value();
  const auto own = static_cast<size_t>(options.sample_tokens - (bos ? 1 : 0));
  const auto count = static_cast<size_t>(options.samples);
  if (tokens.size() < own * count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--calibration ", options.calibration, " has ", tokens.size(), " tokens; ", count,
        " samples of ", own, " need ", own * count, ": give more text, or fewer --samples"));
  }
  Calibration calibration;
  std::vector<std::string> sample_texts;
  for (size_t i = 0; i < count; ++i) {
    const size_t first = count == 1 ? 0 : (tokens.size() - own) * i / (count - 1);
    std::vector<TokenId>& sample = calibration.samples.emplace_back();
    if (bos) sample.push_back(*model.spec.bos_token);
    const auto begin = tokens.begin() + static_cast<ptrdiff_t>(first);
    sample.insert(sample.end(), begin, begin + static_cast<ptrdiff_t>(own));
    std::string& sample_text = sample_texts.emplace_back();
    for (const TokenId token : sample) sample_text += tokenizer->PieceBytes(token);
  }
  calibration.record = CalibrationRecord::Of(sample_texts);
  return calibration;
}

}  // namespace sauva
