#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/stage.h"
#include "sauva/v1/stage.pb.h"

// Translates the words of the stage plane. A peer's message is input, even our own
// worker's: counts and ranges are checked here, meaning by the session that takes it.
namespace sauva {

// Bounds of one step header, so that a hostile peer cannot make us allocate.
inline constexpr int kMaxStepSequences = 4096;
inline constexpr int kMaxStepTokens = 1 << 16;
inline constexpr int kMaxKnownTokens = 1 << 22;
inline constexpr int kMaxHiddenFrameBytes = 1 << 20;

using ControlMessage = std::variant<StageHello, OpenSequence, CloseSequence, StepHeader>;
using ControlReply = std::variant<StageHello, StepResult, StageFault>;

// Errors: INVALID_ARGUMENT naming the field and the value found.
absl::StatusOr<ControlMessage> FromProto(const v1::ControlMessage& in);
v1::ControlMessage ToProto(const ControlMessage& in);

absl::StatusOr<ControlReply> FromProto(const v1::ControlReply& in);
v1::ControlReply ToProto(const ControlReply& in);

StageHello FromProto(const v1::StageHello& in);
void ToProto(const StageHello& in, v1::StageHello* out);

// Cuts hidden states into frames of at most 1 MiB, in order.
std::vector<v1::HiddenFrame> ToFrames(const HiddenStates& in);

// The frame that announces a step.
v1::HiddenFrame ToProto(const HiddenAnnounced& in);
// The frame that hands over what both ends of a link by NCCL join with.
v1::HiddenFrame NcclIdFrame(std::string_view id);
// Errors: INVALID_ARGUMENT for an id of another size than kNcclIdBytes.
absl::Status CheckNcclId(std::string_view id);
// Errors: INVALID_ARGUMENT for a frame that carries data, or a size that is no whole number of
// values.
absl::StatusOr<HiddenAnnounced> AnnouncementFrom(const v1::HiddenFrame& in);

// Puts frames of one link together again.
// Thread: its owner's.
class HiddenAssembler {
 public:
  // max_values: the largest step's tokens times the hidden size.
  explicit HiddenAssembler(size_t max_values) : max_bytes_(max_values * sizeof(float)) {}

  // Takes one frame; returns true when `complete()` holds a whole step.
  // Errors: INVALID_ARGUMENT for a frame out of order, too large or inconsistent.
  absl::StatusOr<bool> Add(const v1::HiddenFrame& frame);

  // The step just completed, moved out.
  HiddenStates Take();

 private:
  const uint64_t max_bytes_;
  uint64_t received_bytes_ = 0;
  bool open_ = false;
  HiddenStates states_;
};

}  // namespace sauva
