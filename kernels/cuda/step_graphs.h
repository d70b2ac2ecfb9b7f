#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/buckets.h"
#include "kernels/cuda/device.h"

namespace sauva::cuda {

// Parts of steps that were recorded (as CUDA graphs) to be queued by one call: one recording
// for each part, bucket of rows and bucket of spans. A part is launched op by op the first time,
// which also loads its kernels, recorded the second time and replayed from then on. When the
// device refuses to record, the log says why and all goes on op by op.
// Thread: the step thread.
class StepGraphs {
 public:
  struct Limits {
    int max_decode_rows = 0;
    int max_sampled_rows = 0;
    int max_spans = 0;
  };
  struct Key {
    StepPart part = StepPart::kLayers;
    int rows = 0;   // a bucket
    int spans = 1;  // a bucket; 1 for parts without attention
  };

  // More recordings are not made; their parts are launched op by op.
  static constexpr int kMostRecordings = 32;
  // What the driver may take for one: an allowance, not a measurement.
  static constexpr int64_t kRecordingBytes = int64_t{1} << 20;

  static constexpr int NumSlots(const Limits& limits) {
    return NumBuckets(limits.max_decode_rows) * NumBuckets(limits.max_spans) +
           NumBuckets(limits.max_sampled_rows);
  }
  static constexpr int64_t BytesFor(const Limits& limits) {
    return std::min(NumSlots(limits), kMostRecordings) * kRecordingBytes;
  }

  // Counts the memory of the recordings there may be. Without it nothing is recorded.
  // Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(Device& device, const Limits& limits);

  bool on() const { return device_ != nullptr; }
  int num_recordings() const { return num_recordings_; }

  // Queues what `ops` queues, which depends on nothing but the key and what lies in buffers.
  void Run(const Key& key, absl::FunctionRef<void()> ops);
  // Drops all recordings: what they refer to is about to go.
  void Forget();

 private:
  struct Slot {
    bool launched = false;
    std::unique_ptr<Recording> recording;
  };

  Slot& SlotOf(const Key& key);
  absl::Status Record(Slot& slot, absl::FunctionRef<void()> ops);

  Device* device_ = nullptr;
  Limits limits_;
  std::vector<Slot> slots_;  // of the layers [rows, spans], then of the head [rows]
  int num_recordings_ = 0;
  bool told_of_limit_ = false;
};

// Says in the log that ops are launched one by one from here on, and why.
void LogNoStepGraphs(const absl::Status& reason);

}  // namespace sauva::cuda
