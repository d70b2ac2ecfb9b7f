#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/tls.h"
#include "proto/control.h"
#include "worker/nccl_end.h"

namespace sauva {

// Asks a worker for tensors of a model, which come by NCCL. Every wait for the other worker has
// an end: the join timeout until both have joined, then the step timeout for each answer and
// for each piece that NCCL moves.
// Thread: its owner's; calls wait.
class WeightClient {
 public:
  // `nccl` must outlive it.
  // Errors: UNAVAILABLE, DEADLINE_EXCEEDED or what the other worker says; those of NCCL.
  static absl::StatusOr<std::unique_ptr<WeightClient>> Connect(const std::string& address,
                                                               const TlsOptions& tls,
                                                               const NcclSetup& nccl,
                                                               const ModelRef& model);
  // Does not wait for NCCL to abort.
  ~WeightClient();

  // Fills `bytes` with the tensor, which must have that size.
  // Errors: as Connect, and DATA_LOSS for another size. It is then good for nothing any more.
  absl::Status Fetch(const std::string& tensor, std::span<std::byte> bytes);

 private:
  class Replies;
  struct Call;
  explicit WeightClient(std::unique_ptr<Call> call);
  const std::unique_ptr<Call> call_;
};

}  // namespace sauva
