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
  if (!computes()) return;
  const auto name = names_.find(args.weight);
  const bool named = name != names_.end();
  const bool last = named && !taps_.last_product.empty() && name->second == taps_.last_product;
  if (last) {
    phase_ = Phase::kEnded;
  } else {
    backend_->MatMul(args);
  }
  if (named && taps_.observer) taps_.observer(name->second, args);
}

void TappedBackend::Add(Rows x, Rows y) {
  if (phase_ != Phase::kSkipped) backend_->Add(x, y);
  if (phase_ != Phase::kSkipped && phase_ != Phase::kFirstSublayer) return;
  phase_ = Phase::kAfterMiddle;
  if (taps_.middle != Middle::kIgnore) taps_.at_middle(x);
}

}  // namespace sauva
