#include "worker/donated_checkpoint.h"

#include <utility>

#include "base/log.h"
#include "base/status_macros.h"

namespace sauva {

DonatedCheckpoint::DonatedCheckpoint(const Checkpoint& local, Fetch fetch)
    : local_(local), fetch_(std::move(fetch)) {}

absl::StatusOr<StoredTensor> DonatedCheckpoint::Find(const std::string& name) const {
  ASSIGN_OR_RETURN(StoredTensor tensor, local_.Find(name));
  const std::lock_guard lock(mutex_);
  if (fetch_ == nullptr) return tensor;
  std::vector<std::byte>& bytes = received_[std::this_thread::get_id()];
  bytes.resize(tensor.bytes.size());
  if (const absl::Status status = fetch_(name, bytes); !status.ok()) {
    LogWarning("the worker that sends weights is lost: the rest is read from disk",
               {{"tensor", name}, {"reason", status.ToString()}});
    fetch_ = nullptr;
    return tensor;
  }
  received_bytes_ += bytes.size();
  tensor.bytes = bytes;
  return tensor;
}

uint64_t DonatedCheckpoint::received_bytes() const {
  const std::lock_guard lock(mutex_);
  return received_bytes_;
}

}  // namespace sauva
