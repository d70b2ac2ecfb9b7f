#include "worker/donated_checkpoint.h"

#include <utility>

#include "base/log.h"
#include "base/status_macros.h"

namespace sauva {

DonatedCheckpoint::DonatedCheckpoint(const Checkpoint& local, Fetch fetch)
    : local_(local), fetch_(std::move(fetch)) {}

absl::StatusOr<StoredTensor> DonatedCheckpoint::Find(const std::string& name) const {
  ASSIGN_OR_RETURN(StoredTensor tensor, local_.Find(name));
  if (fetch_ == nullptr) return tensor;
  received_.resize(tensor.bytes.size());
  if (const absl::Status status = fetch_(name, received_); !status.ok()) {
    LogWarning("the worker that sends weights is lost: the rest is read from disk",
               {{"tensor", name}, {"reason", status.ToString()}});
    fetch_ = nullptr;
    return tensor;
  }
  received_bytes_ += received_.size();
  tensor.bytes = received_;
  return tensor;
}

}  // namespace sauva
