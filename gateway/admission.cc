#include "gateway/admission.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sauva {

absl::Status Admission::Enter(int64_t samples) {
  if (num_samples_ + samples > limits_.max_samples) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the gateway holds ", num_samples_, " samples and takes at most ",
                     limits_.max_samples, "; this request has ", samples));
  }
  num_samples_ += samples;
  return absl::OkStatus();
}

absl::Status Admission::Queue(int64_t tokens) {
  if (num_queued_tokens_ > 0 && num_queued_tokens_ + tokens > limits_.max_queue_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat(num_queued_tokens_, " tokens wait in the gateway, which lets at most ",
                     limits_.max_queue_tokens, " wait; this request has ", tokens));
  }
  num_queued_tokens_ += tokens;
  return absl::OkStatus();
}

void Admission::Dequeue(int64_t tokens) {
  num_queued_tokens_ -= tokens;
  Check(num_queued_tokens_ >= 0, "tokens leave the queue once");
}

void Admission::Leave(int64_t samples) {
  num_samples_ -= samples;
  Check(num_samples_ >= 0, "a sample leaves once");
}

}  // namespace sauva
