#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/events.h"
#include "model/model_files.h"

namespace sauva {

// How models are to be served; decides what they cost.
struct ServingFormat {
  std::string weight_format = "native";  // or "int8"
  std::string kv_type = "f32";           // "f16" or "int8"
  int max_context = 0;                   // tokens; 0: the model's
  int max_step_tokens = 256;
  int max_sequences = 64;
};

// A model as it stood when it was first opened.
struct CatalogModel {
  ModelDescription description;
  ModelFiles files;  // what gateways need of it
};

// The models under one directory, opened when first asked for. Weights are mapped to be
// measured and let go again.
// Thread: any.
class ModelCatalog {
 public:
  // Errors: INVALID_ARGUMENT for a format that is none.
  static absl::StatusOr<std::unique_ptr<ModelCatalog>> Create(const std::string& model_dir,
                                                              const ServingFormat& format);

  // Opens DIR/NAME, or returns what was opened before. The result stays valid as long as
  // the catalog.
  // Errors: INVALID_ARGUMENT for a name that is no single path component; as OpenModel.
  absl::StatusOr<const CatalogModel*> Open(const std::string& name);

  // A model opened before; empty: the only one.
  // Errors: NOT_FOUND naming the known ones; INVALID_ARGUMENT when empty is ambiguous.
  absl::StatusOr<const CatalogModel*> Find(const std::string& name) const;

 private:
  ModelCatalog(const std::string& model_dir, const ServingFormat& format)
      : model_dir_(model_dir), format_(format) {}

  const std::string model_dir_;
  const ServingFormat format_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<const CatalogModel>> models_;
};

}  // namespace sauva
