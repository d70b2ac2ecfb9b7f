#include "worker/nccl_end.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

// Calendar time may be set back; this cannot.
absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

NcclEnd::NcclEnd(const NcclSetup& setup, NcclStarted started, Handlers handlers)
    : setup_(setup),
      epoch_(started.epoch),
      max_values_(started.max_values),
      handlers_(std::move(handlers)),
      session_(setup.options),
      given_{NcclEvent(std::move(started))},
      thread_([this] { Run(); }) {}

NcclEnd::~NcclEnd() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool NcclEnd::Give(NcclEvent event) {
  {
    const std::lock_guard lock(mutex_);
    // What the session would refuse anyway is not piled up.
    if (given_.size() > 2 * setup_.options.max_waiting_steps) return false;
    given_.push_back(std::move(event));
  }
  wake_.notify_one();
  return true;
}

void NcclEnd::Run() {
  while (std::optional<NcclEvent> event = Next()) {
    for (NcclEffect& effect : session_.OnEvent(*std::move(event), SteadyNow())) {
      std::visit([this](auto& e) { Do(e); }, effect);
    }
  }
  pair_.reset();
}

std::optional<NcclEvent> NcclEnd::Next() {
  if (!answers_.empty()) {
    NcclEvent answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }
  std::unique_lock lock(mutex_);
  while (!ending_ && given_.empty()) {
    const absl::Time deadline = session_.NextDeadline();
    const absl::Time now = SteadyNow();
    if (now >= deadline) return NcclTick{};
    if (deadline == absl::InfiniteFuture()) {
      wake_.wait(lock);
    } else {
      wake_.wait_for(lock, absl::ToChronoNanoseconds(deadline - now));
    }
  }
  if (ending_) return std::nullopt;
  NcclEvent event = std::move(given_.front());
  given_.pop_front();
  return event;
}

absl::StatusOr<std::unique_ptr<NcclPair>> OpenNcclPair(const NcclSetup& setup, int64_t bytes) {
  if (!setup.library) return absl::FailedPreconditionError("this worker has no NCCL");
  std::unique_ptr<TransferMemory> memory;
  ASSIGN_OR_RETURN(memory, MakeTransferMemory(setup.device, bytes));
  return std::make_unique<NcclPair>(*setup.library, std::move(memory));
}

void NcclEnd::Answer(const absl::Status& status) {
  if (!status.ok()) answers_.push_back(NcclPolled{.epoch = epoch_, .progress = status});
}

absl::Status NcclEnd::OpenPair() {
  ASSIGN_OR_RETURN(pair_, OpenNcclPair(setup_, static_cast<int64_t>(max_values_ * sizeof(float))));
  return absl::OkStatus();
}

void NcclEnd::Do(const JoinNccl& effect) {
  absl::Status status = OpenPair();
  if (status.ok()) status = pair_->Join(effect.id, effect.rank);
  Answer(status);
}

void NcclEnd::Do(const PollNccl& effect) {
  NcclPolled polled{.epoch = effect.epoch, .progress = pair_->Poll()};
  if (polled.progress.ok() && *polled.progress == NcclPair::Progress::kDone) {
    const std::span<const std::byte> received = pair_->received();
    polled.received.resize(received.size() / sizeof(float));
    if (!received.empty()) std::memcpy(polled.received.data(), received.data(), received.size());
  }
  answers_.push_back(std::move(polled));
}

void NcclEnd::Do(const BeginNcclSend& effect) {
  Answer(pair_->Send(std::as_bytes(std::span(effect.states.values))));
}

void NcclEnd::Do(const BeginNcclReceive& effect) {
  Answer(pair_->Receive(static_cast<int64_t>(effect.num_values * sizeof(float))));
}

void NcclEnd::Do(const AbortNccl&) {
  if (pair_) pair_->Abort();
}

void NcclEnd::Do(const NcclJoined& effect) {
  LogInfo("NCCL link joined", {{"epoch", effect.epoch}, {"version", setup_.library->version}});
  if (handlers_.on_joined) handlers_.on_joined();
}

void NcclEnd::Do(const HiddenAnnounced& effect) { handlers_.announce(effect); }
void NcclEnd::Do(HiddenStates& effect) { handlers_.on_received(std::move(effect)); }
void NcclEnd::Do(const NcclLost& effect) { handlers_.on_lost(effect.reason); }

}  // namespace sauva
