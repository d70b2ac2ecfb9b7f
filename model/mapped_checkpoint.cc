#include "model/mapped_checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/expected_tensors.h"

namespace sauva {

absl::StatusOr<QuantizedMatrix> Checkpoint::ReadQuantized(const std::string& name,
                                                          std::vector<uint8_t>) const {
  return absl::NotFoundError(absl::StrCat("the checkpoint has no quantized matrix '", name, "'"));
}

namespace {

struct Candidate {
  const SafetensorsFile* file = nullptr;
  const SafetensorsEntry* entry = nullptr;
};

// What the files offer under each canonical name: one tensor, and the parts of a
// quantized matrix.
struct Offered {
  std::map<std::string, Candidate> tensors;
  std::map<std::string, QuantizedParts> parts;
};

struct ModulePart {
  std::string module;
  std::string suffix;
};

// "model.layers.0.mlp.up_proj.qweight" by the layout's suffixes.
std::optional<ModulePart> SplitName(const std::string& name, const QuantizedLayout& layout) {
  std::optional<ModulePart> longest;
  for (const std::string& suffix : layout.suffixes()) {
    if (!name.ends_with("." + suffix)) continue;
    if (longest && longest->suffix.size() >= suffix.size()) continue;
    longest = {name.substr(0, name.size() - suffix.size() - 1), suffix};
  }
  return longest;
}

void Offer(const Candidate& found, const Family& family, const QuantizedLayout* layout,
           Offered& offered) {
  const SafetensorsEntry& entry = *found.entry;
  const auto name = family.canonical_name(entry.name);
  if (name) offered.tensors[*name] = found;
  if (layout == nullptr) return;
  const auto part = SplitName(entry.name, *layout);
  if (!part || part->suffix == "bias") return;  // a bias is a tensor of its own
  const auto matrix = family.canonical_name(part->module + ".weight");
  if (!matrix) return;
  QuantizedParts& parts = offered.parts[*matrix];
  parts.module = part->module;
  parts.by_suffix[part->suffix] = {entry.dtype, entry.shape, found.file->BytesOf(entry)};
}

Offered OfferAll(const std::vector<SafetensorsFile>& files, const Family& family,
                 const QuantizedLayout* layout) {
  Offered offered;
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsEntry& entry : file.header.entries) {
      Offer({&file, &entry}, family, layout, offered);
    }
  }
  return offered;
}

absl::StatusOr<DType> WeightType(const Candidate& found) {
  const std::string& dtype = found.entry->dtype;
  if (dtype == "F32") return DType::kF32;
  if (dtype == "F16") return DType::kF16;
  if (dtype == "BF16") return DType::kBF16;
  return absl::InvalidArgumentError(absl::StrCat(found.file->file_name, ": tensor '",
                                                 found.entry->name, "' has dtype ", dtype,
                                                 ", expected F32, F16 or BF16"));
}

absl::StatusOr<StoredTensor> Verify(const Candidate& found, const ExpectedTensor& expected) {
  StoredTensor tensor;
  ASSIGN_OR_RETURN(tensor.dtype, WeightType(found));
  if (found.entry->shape != expected.shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(found.file->file_name, ": tensor '", found.entry->name, "' (", expected.name,
                     ") has shape ", ShapeText(found.entry->shape), ", expected ",
                     ShapeText(expected.shape), " by config.json"));
  }
  tensor.shape = found.entry->shape;
  tensor.bytes = found.file->BytesOf(*found.entry);
  return tensor;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedCheckpoint>> MappedCheckpoint::Open(
    const std::string& directory, const ModelSpec& spec, const Family& family,
    std::unique_ptr<QuantizedLayout> layout) {
  std::unique_ptr<MappedCheckpoint> checkpoint(new MappedCheckpoint());
  ASSIGN_OR_RETURN(checkpoint->files_, OpenSafetensors(directory));
  checkpoint->layout_ = std::move(layout);
  const QuantizedLayout* quantized = checkpoint->layout_.get();
  Offered offered = OfferAll(checkpoint->files_, family, quantized);
  for (const ExpectedTensor& expected : ExpectedTensors(spec)) {
    const auto parts = offered.parts.find(expected.name);
    if (parts != offered.parts.end() && quantized->IsQuantized(parts->second)) {
      if (IsKept(quantized->kept_modules(), parts->second.module)) {
        return absl::InvalidArgumentError(
            absl::StrCat(directory, ": module '", parts->second.module,
                         "' is stored quantized, but quantization_config says it is not"));
      }
      Quantized matrix{.parts = std::move(parts->second)};
      ASSIGN_OR_RETURN(matrix.outline,
                       quantized->Outline(matrix.parts, {.rows = expected.shape[0],
                                                         .columns = expected.shape[1]}));
      checkpoint->quantized_.emplace(expected.name, std::move(matrix));
      continue;
    }
    const auto found = offered.tensors.find(expected.name);
    if (found == offered.tensors.end()) {
      return absl::InvalidArgumentError(absl::StrCat(directory, ": tensor '", expected.name,
                                                     "' of shape ", ShapeText(expected.shape),
                                                     " is missing from the checkpoint"));
    }
    ASSIGN_OR_RETURN(StoredTensor tensor, Verify(found->second, expected));
    checkpoint->tensors_.emplace(expected.name, std::move(tensor));
  }
  return checkpoint;
}

absl::StatusOr<StoredTensor> MappedCheckpoint::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  return absl::NotFoundError(absl::StrCat("tensor '", name, "' is not in the checkpoint"));
}

std::optional<QuantizedOutline> MappedCheckpoint::FindQuantized(const std::string& name) const {
  const auto found = quantized_.find(name);
  if (found == quantized_.end()) return std::nullopt;
  return found->second.outline;
}

absl::StatusOr<QuantizedMatrix> MappedCheckpoint::ReadQuantized(const std::string& name,
                                                                std::vector<uint8_t> codes) const {
  const auto found = quantized_.find(name);
  if (found == quantized_.end()) return Checkpoint::ReadQuantized(name, {});
  const Quantized& matrix = found->second;
  return layout_->Read(matrix.parts,
                       {.rows = matrix.outline.rows, .columns = matrix.outline.columns},
                       std::move(codes));
}

void MappedCheckpoint::DropPages() const {
  for (const SafetensorsFile& file : files_) file.file.DropPages();
}

std::vector<std::string> MappedCheckpoint::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  for (const auto& [name, matrix] : quantized_) names.push_back(name);
  std::ranges::sort(names);
  return names;
}

}  // namespace sauva
