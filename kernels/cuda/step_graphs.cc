#include "kernels/cuda/step_graphs.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "kernels/cuda/buckets.h"

namespace sauva::cuda {

absl::Status StepGraphs::Reserve(Device& device, const Limits& limits) {
  RETURN_IF_ERROR(device.SetAside(BytesFor(limits)));
  limits_ = limits;
  slots_ = std::vector<Slot>(static_cast<size_t>(NumSlots(limits)));
  device_ = &device;
  return absl::OkStatus();
}

StepGraphs::Slot& StepGraphs::SlotOf(const Key& key) {
  const int num_spans = NumBuckets(limits_.max_spans);
  int index = 0;
  if (key.part == StepPart::kLayers) {
    Check(key.rows <= limits_.max_decode_rows && key.spans <= limits_.max_spans,
          "a recorded part is within the limits");
    index = BucketIndex(key.rows, limits_.max_decode_rows) * num_spans +
            BucketIndex(key.spans, limits_.max_spans);
  } else {
    Check(key.rows <= limits_.max_sampled_rows, "a recorded part is within the limits");
    index = NumBuckets(limits_.max_decode_rows) * num_spans +
            BucketIndex(key.rows, limits_.max_sampled_rows);
  }
  return slots_[static_cast<size_t>(index)];
}

void StepGraphs::Run(const Key& key, absl::FunctionRef<void()> ops) {
  if (!on()) return ops();
  Slot& slot = SlotOf(key);
  if (slot.recording == nullptr && slot.launched && num_recordings_ == kMostRecordings) {
    if (!told_of_limit_) LogInfo("no more step graphs", {{"limit", kMostRecordings}});
    told_of_limit_ = true;
    return ops();
  }
  if (!slot.launched) {
    slot.launched = true;
    return ops();
  }
  if (slot.recording == nullptr) {
    const absl::Status status = Record(slot, ops);
    if (!status.ok()) {
      LogNoStepGraphs(status);
      Forget();
      device_ = nullptr;
      return ops();
    }
  }
  device_->Replay(*slot.recording);
}

absl::Status StepGraphs::Record(Slot& slot, absl::FunctionRef<void()> ops) {
  RETURN_IF_ERROR(device_->BeginRecording());
  ops();
  ASSIGN_OR_RETURN(slot.recording, device_->EndRecording());
  ++num_recordings_;
  return absl::OkStatus();
}

void LogNoStepGraphs(const absl::Status& reason) {
  LogWarning("no step graphs: ops are launched one by one", {{"reason", reason.ToString()}});
}

void StepGraphs::Forget() {
  for (Slot& slot : slots_) slot.recording.reset();
  num_recordings_ = 0;
}

}  // namespace sauva::cuda
