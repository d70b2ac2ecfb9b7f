#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace sauva {

struct AdmissionLimits {
  int64_t max_samples = 4096;          // in the gateway at once, running ones included
  int64_t max_queue_tokens = 4 << 20;  // prompt and completion tokens of samples that wait
};

// Keeps count of what the gateway has taken on and refuses early what goes beyond.
// A sample enters, waits with its tokens until a head takes it, runs, and leaves.
// Thread: its owner's.
class Admission {
 public:
  explicit Admission(const AdmissionLimits& limits) : limits_(limits) {}

  // Before anything is done for `samples` samples of one request.
  // Errors: RESOURCE_EXHAUSTED naming the limit and the value.
  absl::Status Enter(int64_t samples);

  // Once their tokens are known; they wait from now on. A request that alone is larger
  // than the queue may wait in an empty one.
  // Errors: RESOURCE_EXHAUSTED naming the limit and the value.
  absl::Status Queue(int64_t tokens);

  void Dequeue(int64_t tokens);  // a head has taken them, or they are gone
  void Leave(int64_t samples);

  int64_t num_samples() const { return num_samples_; }
  int64_t num_queued_tokens() const { return num_queued_tokens_; }

 private:
  const AdmissionLimits limits_;
  int64_t num_samples_ = 0;
  int64_t num_queued_tokens_ = 0;
};

}  // namespace sauva
