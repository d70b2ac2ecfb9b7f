#include "quantize/source_tensors.h"

#include <string_view>

#include "base/status_macros.h"
#include "model/families/family.h"
#include "model/tensor_names.h"

namespace sauva {

absl::StatusOr<SourceTensors> SourceTensors::Open(const std::string& directory,
                                                  const Model& model) {
  SourceTensors source;
  ASSIGN_OR_RETURN(source.files_, OpenSafetensors(directory));
  ASSIGN_OR_RETURN(const Family* family, FamilyOf(model.files));
  source.layers_.resize(static_cast<size_t>(model.spec.num_layers()));
  for (const SafetensorsFile& file : source.files_) {
    for (const SafetensorsEntry& entry : file.header.entries) {
      const std::string canonical = family->canonical_name(entry.name).value_or("");
      Tensor tensor{entry.name, canonical, entry.dtype, entry.shape, file.BytesOf(entry)};
      constexpr std::string_view kWeight = ".weight";
      if (!canonical.empty() && entry.name.ends_with(kWeight)) {
        source.modules_[canonical] = entry.name.substr(0, entry.name.size() - kWeight.size());
      }
      std::vector<Tensor>* home = &source.rest_;
      for (int i = 0; i < model.spec.num_layers(); ++i) {
        if (canonical.starts_with(tensor_names::Layer(i, ""))) {
          home = &source.layers_[static_cast<size_t>(i)];
        }
      }
      home->push_back(std::move(tensor));
    }
  }
  return source;
}

void SourceTensors::DropPages() const {
  for (const SafetensorsFile& file : files_) file.file.DropPages();
}

}  // namespace sauva
