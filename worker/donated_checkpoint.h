#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"

namespace sauva {

// A checkpoint whose bytes come from another worker: names and shapes are read here, from the
// same model, and so are its quantized matrices. When the other worker is lost, the rest comes
// from here too, and the log says so.
// For one load: it holds one tensor for each thread that finds any, whose bytes are valid until
// that thread finds the next. Tensors come one after the other, whoever asks.
// Thread: any.
class DonatedCheckpoint : public Checkpoint {
 public:
  // Fills the bytes of a tensor; after an error it is not asked again.
  using Fetch = std::function<absl::Status(const std::string& name, std::span<std::byte> bytes)>;

  // `local` must outlive it.
  DonatedCheckpoint(const Checkpoint& local, Fetch fetch);

  absl::StatusOr<StoredTensor> Find(const std::string& name) const override;
  std::optional<QuantizedOutline> FindQuantized(const std::string& name) const override {
    return local_.FindQuantized(name);
  }
  absl::StatusOr<QuantizedMatrix> ReadQuantized(const std::string& name,
                                                std::vector<uint8_t> codes) const override {
    return local_.ReadQuantized(name, std::move(codes));
  }
  std::vector<std::string> Names() const override { return local_.Names(); }

  uint64_t received_bytes() const;

 private:
  const Checkpoint& local_;
  mutable std::mutex mutex_;  // guards what is below
  mutable Fetch fetch_;       // empty once it has failed
  mutable std::map<std::thread::id, std::vector<std::byte>> received_;
  mutable uint64_t received_bytes_ = 0;
};

}  // namespace sauva
