#include "engine/tapped_backend.h"

#include "base/status_macros.h"

namespace sauva {

absl::StatusOr<std::unique_ptr<Weight>> TappedBackend::PrepareWeight(const WeightSource& source,
                                                                     WeightFormat format) {
  ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight, backend_->PrepareWeight(source, format));
  names_[weight.get()] = source.name;
  return weight;
}

void TappedBackend::MatMul(const MatMulArgs& args) {
  if (ended_) return;
  const auto name = names_.find(args.weight);
  ended_ = name != names_.end() && !last_product_.empty() && name->second == last_product_;
  if (!ended_) backend_->MatMul(args);
  if (name != names_.end()) observer_(name->second, args);
}

}  // namespace sauva
