#include "model/tokenizers/piece_model.h"

#include <sentencepiece_processor.h>

#include <utility>

#include "base/check.h"

namespace sauva {

std::unique_ptr<PieceModel> PieceModel::Load(const std::string& serialized, Front front,
                                             std::string& error) {
  // Parsing merges later fields over earlier ones, so that appending
  // normalizer_spec { add_dummy_prefix: false } overrides what the file says.
  constexpr std::string_view kNothingInFront("\x1a\x02\x18\x00", 4);
  std::string proto = serialized;
  if (front == Front::kNothing) proto += kNothingInFront;
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto(proto);
  if (!status.ok()) {
    error = status.ToString();
    return nullptr;
  }
  if (processor->GetPieceSize() == 0) {
    error = "it has no pieces";
    return nullptr;
  }
  return std::unique_ptr<PieceModel>(new PieceModel(std::move(processor)));
}

PieceModel::PieceModel(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor)
    : processor_(std::move(processor)) {}

PieceModel::~PieceModel() = default;

std::vector<int32_t> PieceModel::Encode(std::string_view text) const {
  std::vector<int> ids;
  Check(processor_->Encode(text, &ids).ok(), "a loaded SentencePiece model encodes any text");
  return {ids.begin(), ids.end()};
}

int PieceModel::size() const { return processor_->GetPieceSize(); }
int PieceModel::bos_id() const { return processor_->bos_id(); }
int PieceModel::eos_id() const { return processor_->eos_id(); }

PieceModel::Kind PieceModel::kind(int id) const {
  Check(id >= 0 && id < size(), "a piece exists");
  if (processor_->IsControl(id)) return Kind::kControl;
  if (processor_->IsUnknown(id)) return Kind::kUnknown;
  if (processor_->IsUnused(id)) return Kind::kUnused;
  if (processor_->IsByte(id)) return Kind::kByte;
  return Kind::kText;
}

const std::string& PieceModel::text(int id) const {
  Check(id >= 0 && id < size(), "a piece exists");
  return processor_->IdToPiece(id);
}

}  // namespace sauva
