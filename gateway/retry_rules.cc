#include "gateway/retry_rules.h"

#include <algorithm>

namespace sauva {

Verdict JudgeHead(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kFailedPrecondition:  // another epoch or digest
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:  // by the head; ours are never heard of again
    case absl::StatusCode::kDeadlineExceeded:
      return Verdict::kMove;
    case absl::StatusCode::kResourceExhausted:
      return Verdict::kBusy;
    case absl::StatusCode::kOk:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kNotFound:
      return Verdict::kFault;
    default:
      return Verdict::kRefuse;
  }
}

Verdict JudgeDispatch(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return Verdict::kMove;
    case absl::StatusCode::kResourceExhausted:
      return Verdict::kBusy;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return Verdict::kFault;
    default:
      return Verdict::kRefuse;
  }
}

absl::Duration PauseAfter(int fruitless_attempts, const Backoff& backoff, uint64_t entropy) {
  if (fruitless_attempts <= 1) return absl::ZeroDuration();
  const int doublings = std::min(fruitless_attempts - 2, 30);
  const absl::Duration whole =
      std::min(backoff.first * static_cast<double>(1u << doublings), backoff.largest);
  // splitmix64, so that samples broken together do not come back together.
  uint64_t x = entropy + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return whole * (0.5 + 0.5 * static_cast<double>(x >> 40) / static_cast<double>(1u << 24));
}

}  // namespace sauva
