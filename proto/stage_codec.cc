#include "proto/stage_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/generation_codec.h"

namespace sauva {
namespace {

using sauva::FromProto;  // the file-local overloads below would hide them
using sauva::ToProto;

static_assert(std::endian::native == std::endian::little, "frames carry little-endian floats");

absl::Status CheckCount(const char* field, uint64_t found, uint64_t limit) {
  if (found <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", found, "; the limit is ", limit));
}

absl::StatusOr<OpenSequence> FromProto(const v1::OpenSequence& in) {
  OpenSequence out;
  RETURN_IF_ERROR(CheckCount("open.tokens (entries)", static_cast<uint64_t>(in.tokens_size()),
                             kMaxKnownTokens));
  RETURN_IF_ERROR(CheckCount("open.num_prompt_tokens", in.num_prompt_tokens(),
                             static_cast<uint64_t>(in.tokens_size())));
  out.id = in.sequence_id();
  ASSIGN_OR_RETURN(out.sampling, FromProto(in.sampling()));
  out.seed = in.seed();
  out.sample_index = in.sample_index();
  out.tokens.assign(in.tokens().begin(), in.tokens().end());
  out.num_prompt_tokens = in.num_prompt_tokens();
  return out;
}

void ToProto(const OpenSequence& in, v1::OpenSequence* out) {
  out->set_sequence_id(in.id);
  ToProto(in.sampling, out->mutable_sampling());
  out->set_seed(in.seed);
  out->set_sample_index(in.sample_index);
  out->mutable_tokens()->Assign(in.tokens.begin(), in.tokens.end());
  out->set_num_prompt_tokens(in.num_prompt_tokens);
}

absl::StatusOr<StepWant> FromProto(v1::StepWant in) {
  switch (in) {
    case v1::STEP_WANT_UNSPECIFIED:
      return StepWant::kNone;
    case v1::STEP_WANT_SAMPLE:
      return StepWant::kSample;
    case v1::STEP_WANT_SCORE:
      return StepWant::kScore;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("step.want is ", static_cast<int>(in), ", which this version lacks"));
  }
}

v1::StepWant ToProto(StepWant in) {
  switch (in) {
    case StepWant::kSample:
      return v1::STEP_WANT_SAMPLE;
    case StepWant::kScore:
      return v1::STEP_WANT_SCORE;
    case StepWant::kNone:
      break;
  }
  return v1::STEP_WANT_UNSPECIFIED;
}

absl::StatusOr<SequenceStep> FromProto(const v1::SequenceStep& in) {
  SequenceStep out;
  RETURN_IF_ERROR(CheckCount("step.first_position", in.first_position(), kMaxKnownTokens));
  RETURN_IF_ERROR(
      CheckCount("step.tokens (entries)", static_cast<uint64_t>(in.tokens_size()), kMaxStepTokens));
  out.id = in.sequence_id();
  out.first_position = static_cast<int>(in.first_position());
  out.tokens.assign(in.tokens().begin(), in.tokens().end());
  for (const v1::BlockDelta& delta : in.blocks()) {
    out.blocks.push_back({delta.kv_group(), {delta.appended().begin(), delta.appended().end()}});
  }
  ASSIGN_OR_RETURN(out.want, FromProto(in.want()));
  return out;
}

void ToProto(const SequenceStep& in, v1::SequenceStep* out) {
  out->set_sequence_id(in.id);
  out->set_first_position(static_cast<uint32_t>(in.first_position));
  out->mutable_tokens()->Assign(in.tokens.begin(), in.tokens.end());
  for (const BlockDelta& delta : in.blocks) {
    v1::BlockDelta* added = out->add_blocks();
    added->set_kv_group(delta.kv_group);
    added->mutable_appended()->Assign(delta.appended.begin(), delta.appended.end());
  }
  out->set_want(ToProto(in.want));
}

absl::StatusOr<StepHeader> FromProto(const v1::StepHeader& in) {
  StepHeader out;
  RETURN_IF_ERROR(CheckCount("step.sequences (entries)", static_cast<uint64_t>(in.sequences_size()),
                             kMaxStepSequences));
  out.epoch = in.epoch();
  out.step_id = in.step_id();
  for (const v1::SequenceStep& entry : in.sequences()) {
    ASSIGN_OR_RETURN(SequenceStep step, FromProto(entry));
    out.sequences.push_back(std::move(step));
  }
  return out;
}

void ToProto(const StepHeader& in, v1::StepHeader* out) {
  out->set_epoch(in.epoch);
  out->set_step_id(in.step_id);
  for (const SequenceStep& entry : in.sequences) ToProto(entry, out->add_sequences());
}

StepResult FromProto(const v1::StepResult& in) {
  StepResult out;
  out.epoch = in.epoch();
  out.step_id = in.step_id();
  out.compute_seconds = in.compute_seconds();
  for (const v1::SampledToken& entry : in.sampled()) {
    SampledToken token;
    token.id = entry.sequence_id();
    token.token = entry.token_id();
    if (entry.has_logprobs()) token.logprobs.push_back(FromProto(entry.logprobs()));
    token.scores.assign(entry.scores().begin(), entry.scores().end());
    out.sampled.push_back(std::move(token));
  }
  return out;
}

void ToProto(const StepResult& in, v1::StepResult* out) {
  out->set_epoch(in.epoch);
  out->set_step_id(in.step_id);
  out->set_compute_seconds(in.compute_seconds);
  for (const SampledToken& entry : in.sampled) {
    v1::SampledToken* added = out->add_sampled();
    added->set_sequence_id(entry.id);
    added->set_token_id(entry.token);
    if (!entry.logprobs.empty()) ToProto(entry.logprobs.front(), added->mutable_logprobs());
    added->mutable_scores()->Assign(entry.scores.begin(), entry.scores.end());
  }
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

StageHello FromProto(const v1::StageHello& in) {
  return {.epoch = in.epoch(),
          .from_stage = static_cast<int>(std::min(in.from_stage(), uint32_t{1} << 20)),
          .to_stage = static_cast<int>(std::min(in.to_stage(), uint32_t{1} << 20)),
          .numerics_id = in.numerics_id(),
          .protocol_version = in.protocol_version()};
}

void ToProto(const StageHello& in, v1::StageHello* out) {
  out->set_epoch(in.epoch);
  out->set_from_stage(static_cast<uint32_t>(in.from_stage));
  out->set_to_stage(static_cast<uint32_t>(in.to_stage));
  out->set_numerics_id(in.numerics_id);
  out->set_protocol_version(in.protocol_version);
}

absl::StatusOr<ControlMessage> FromProto(const v1::ControlMessage& in) {
  switch (in.message_case()) {
    case v1::ControlMessage::kHello:
      return FromProto(in.hello());
    case v1::ControlMessage::kOpen:
      return FromProto(in.open());
    case v1::ControlMessage::kClose:
      return CloseSequence{in.close().sequence_id()};
    case v1::ControlMessage::kStep:
      return FromProto(in.step());
    case v1::ControlMessage::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("control message is empty or of a kind this version lacks");
}

v1::ControlMessage ToProto(const ControlMessage& in) {
  v1::ControlMessage out;
  std::visit(
      Overloaded{
          [&](const StageHello& hello) { ToProto(hello, out.mutable_hello()); },
          [&](const OpenSequence& open) { ToProto(open, out.mutable_open()); },
          [&](const CloseSequence& close) { out.mutable_close()->set_sequence_id(close.id); },
          [&](const StepHeader& step) { ToProto(step, out.mutable_step()); },
      },
      in);
  return out;
}

absl::StatusOr<ControlReply> FromProto(const v1::ControlReply& in) {
  switch (in.message_case()) {
    case v1::ControlReply::kHello:
      return FromProto(in.hello());
    case v1::ControlReply::kResult:
      return FromProto(in.result());
    case v1::ControlReply::kFault:
      return StageFault{in.fault().epoch(), in.fault().reason(), in.fault().suspect_worker_id()};
    case v1::ControlReply::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("control reply is empty or of a kind this version lacks");
}

v1::ControlReply ToProto(const ControlReply& in) {
  v1::ControlReply out;
  std::visit(Overloaded{
                 [&](const StageHello& hello) { ToProto(hello, out.mutable_hello()); },
                 [&](const StepResult& result) { ToProto(result, out.mutable_result()); },
                 [&](const StageFault& fault) {
                   out.mutable_fault()->set_epoch(fault.epoch);
                   out.mutable_fault()->set_reason(fault.reason);
                   out.mutable_fault()->set_suspect_worker_id(fault.suspect_worker_id);
                 },
             },
             in);
  return out;
}

std::vector<v1::HiddenFrame> ToFrames(const HiddenStates& in) {
  std::vector<v1::HiddenFrame> frames;
  const char* bytes = reinterpret_cast<const char*>(in.values.data());
  const size_t total = in.values.size() * sizeof(float);
  size_t offset = 0;
  do {
    const size_t size = std::min<size_t>(total - offset, kMaxHiddenFrameBytes);
    v1::HiddenFrame& frame = frames.emplace_back();
    frame.set_epoch(in.epoch);
    frame.set_step_id(in.step_id);
    frame.set_total_bytes(total);
    frame.set_offset(offset);
    frame.set_data(bytes + offset, size);
    offset += size;
  } while (offset < total);
  return frames;
}

v1::HiddenFrame ToProto(const HiddenAnnounced& in) {
  v1::HiddenFrame out;
  out.set_epoch(in.epoch);
  out.set_step_id(in.step_id);
  out.set_total_bytes(in.num_values * sizeof(float));
  return out;
}

v1::HiddenFrame NcclIdFrame(std::string_view id) {
  v1::HiddenFrame out;
  out.set_nccl_id(std::string(id));
  return out;
}

absl::Status CheckNcclId(std::string_view id) {
  if (id.size() == kNcclIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("nccl_id has ", id.size(), " bytes; expected ", kNcclIdBytes));
}

absl::StatusOr<HiddenAnnounced> AnnouncementFrom(const v1::HiddenFrame& in) {
  if (!in.data().empty() || in.offset() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("hidden frame of step ", in.step_id(), " has ",
                                                   in.data().size(), " bytes at ", in.offset(),
                                                   "; on this link they come by NCCL"));
  }
  if (in.total_bytes() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden.total_bytes is ", in.total_bytes(), ", not a multiple of 4"));
  }
  return HiddenAnnounced{in.epoch(), in.step_id(), in.total_bytes() / sizeof(float)};
}

absl::StatusOr<bool> HiddenAssembler::Add(const v1::HiddenFrame& frame) {
  RETURN_IF_ERROR(CheckCount("hidden.total_bytes", frame.total_bytes(), max_bytes_));
  RETURN_IF_ERROR(CheckCount("hidden.data (bytes)", frame.data().size(), kMaxHiddenFrameBytes));
  if (frame.total_bytes() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden.total_bytes is ", frame.total_bytes(), ", not a multiple of 4"));
  }
  if (!open_) {
    states_ = {.epoch = frame.epoch(), .step_id = frame.step_id(), .values = {}};
    states_.values.resize(frame.total_bytes() / sizeof(float));
    received_bytes_ = 0;
    open_ = true;
  }
  const uint64_t total = states_.values.size() * sizeof(float);
  if (frame.epoch() != states_.epoch || frame.step_id() != states_.step_id ||
      frame.total_bytes() != total || frame.offset() != received_bytes_ ||
      frame.data().size() > total - received_bytes_ || (frame.data().empty() && total != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden frame of step ", frame.step_id(), " at byte ", frame.offset(), " of ",
                     frame.total_bytes(), " does not follow step ", states_.step_id, " at byte ",
                     received_bytes_, " of ", total));
  }
  if (total == 0) return true;  // memcpy takes no null pointer, not even for nothing
  std::memcpy(reinterpret_cast<char*>(states_.values.data()) + received_bytes_, frame.data().data(),
              frame.data().size());
  received_bytes_ += frame.data().size();
  return received_bytes_ == total;
}

HiddenStates HiddenAssembler::Take() {
  open_ = false;
  return std::move(states_);
}

}  // namespace sauva
