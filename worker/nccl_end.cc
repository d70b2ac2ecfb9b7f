#include "worker/nccl_end.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace sauva {
namespace {

// Calendar time may be set back; this cannot.
absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

absl::StatusOr<std::unique_ptr<NcclPair>> OpenNcclPair(const NcclAccess& nccl, int64_t bytes) {
  if (!nccl.functions) return absl::FailedPreconditionError("this worker has no NCCL");
  std::unique_ptr<TransferMemory> memory;
  ASSIGN_OR_RETURN(memory, MakeTransferMemory(nccl.device, bytes));
  return std::make_unique<NcclPair>(*nccl.functions, std::move(memory));
}

// What the thread of an end owns.
class NcclEnd::Runner {
 public:
  Runner(NcclAccess nccl, NcclStarted started, Handlers handlers)
      : nccl_(std::move(nccl)),
        started_(std::move(started)),
        session_(nccl_.options),
        handlers_(std::move(handlers)) {}

  void Run();
  // From other threads.
  bool Give(NcclEvent event);
  void End();

 private:
  // The next event, or a tick when one is due; nothing when the end shall end.
  std::optional<NcclEvent> Next();
  void Take(NcclEvent event);
  void Do(const JoinNccl& effect);
  void Do(const PollNccl& effect);
  void Do(const BeginNcclSend& effect);
  void Do(const BeginNcclReceive& effect);
  void Do(const AbortNccl& effect);
  void Do(const NcclJoined& effect);
  void Do(const HiddenAnnounced& effect) { Tell(&Handlers::announce, effect); }
  void Do(HiddenStates& effect) { Tell(&Handlers::on_received, std::move(effect)); }
  void Do(const NcclLost& effect) { Tell(&Handlers::on_lost, effect); }
  absl::Status MakeId();
  absl::Status OpenPair();
  // What a call that began something says, unless it began.
  void Answer(const absl::Status& status);

  // Calls a handler unless the end was ended. Whoever ends it waits for a handler that is just
  // being called, never for NCCL.
  template <class F, class... Args>
  void Tell(F Handlers::*which, Args&&... args) {
    const std::lock_guard lock(telling_);
    if (handlers_.*which) (handlers_.*which)(std::forward<Args>(args)...);
  }

  const NcclAccess nccl_;
  // The end's thread's.
  NcclStarted started_;
  NcclSession session_;
  std::unique_ptr<NcclPair> pair_;
  std::deque<NcclEvent> answers_;  // of the pair, before what others give

  std::mutex telling_;
  Handlers handlers_;  // guarded by telling_

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<NcclEvent> given_;  // guarded by mutex_
  bool ending_ = false;          // guarded by mutex_
};

absl::StatusOr<std::unique_ptr<NcclEnd>> NcclEnd::Start(const NcclSetup& setup, NcclStarted started,
                                                        Handlers handlers) {
  const auto runner = std::make_shared<Runner>(setup, std::move(started), std::move(handlers));
  if (const absl::Status status = setup.ends.Start([runner] { runner->Run(); }); !status.ok()) {
    return absl::ResourceExhaustedError(absl::StrCat("NCCL links: ", status.message()));
  }
  return std::unique_ptr<NcclEnd>(new NcclEnd(runner));
}

NcclEnd::NcclEnd(std::shared_ptr<Runner> runner) : runner_(std::move(runner)) {}
NcclEnd::~NcclEnd() { runner_->End(); }
bool NcclEnd::Give(NcclEvent event) { return runner_->Give(std::move(event)); }

void NcclEnd::Runner::End() {
  {
    const std::lock_guard lock(telling_);
    handlers_ = {};
  }
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_one();
}

bool NcclEnd::Runner::Give(NcclEvent event) {
  {
    const std::lock_guard lock(mutex_);
    // What the session would refuse anyway is not piled up.
    if (given_.size() > 2 * nccl_.options.max_waiting_steps) return false;
    given_.push_back(std::move(event));
  }
  wake_.notify_one();
  return true;
}

void NcclEnd::Runner::Run() {
  {
    const std::lock_guard lock(mutex_);
    if (ending_) return;
  }
  if (const absl::Status status = MakeId(); !status.ok()) {
    return Do(NcclLost{started_.epoch, NcclFault::kOwn, absl::StrCat("NCCL: ", status.message())});
  }
  Take(started_);
  while (std::optional<NcclEvent> event = Next()) Take(*std::move(event));
  pair_.reset();
}

void NcclEnd::Runner::Take(NcclEvent event) {
  for (NcclEffect& effect : session_.OnEvent(std::move(event), SteadyNow())) {
    std::visit([this](auto& e) { Do(e); }, effect);
  }
}

std::optional<NcclEvent> NcclEnd::Runner::Next() {
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

// Only once both ends are about to join: for each id, NCCL keeps a thread and a socket until
// both have.
absl::Status NcclEnd::Runner::MakeId() {
  if (!started_.sends) return absl::OkStatus();
  if (!nccl_.functions) return absl::FailedPreconditionError("this worker has no NCCL");
  ASSIGN_OR_RETURN(started_.id, nccl_.functions->MakeId());
  Tell(&Handlers::on_id, started_.id);
  return absl::OkStatus();
}

void NcclEnd::Runner::Answer(const absl::Status& status) {
  if (!status.ok()) answers_.push_back(NcclPolled{.epoch = started_.epoch, .progress = status});
}

absl::Status NcclEnd::Runner::OpenPair() {
  const size_t bytes = started_.max_values * sizeof(float);
  ASSIGN_OR_RETURN(pair_, OpenNcclPair(nccl_, static_cast<int64_t>(bytes)));
  return absl::OkStatus();
}

void NcclEnd::Runner::Do(const JoinNccl& effect) {
  absl::Status status = OpenPair();
  if (status.ok()) status = pair_->Join(effect.id, effect.rank);
  Answer(status);
}

void NcclEnd::Runner::Do(const PollNccl& effect) {
  NcclPolled polled{.epoch = effect.epoch, .progress = pair_->Poll()};
  if (polled.progress.ok() && *polled.progress == NcclPair::Progress::kDone) {
    const std::span<const std::byte> received = pair_->received();
    polled.received.resize(received.size() / sizeof(float));
    if (!received.empty()) std::memcpy(polled.received.data(), received.data(), received.size());
  }
  answers_.push_back(std::move(polled));
}

void NcclEnd::Runner::Do(const BeginNcclSend& effect) {
  Answer(pair_->Send(std::as_bytes(std::span(effect.states.values))));
}

void NcclEnd::Runner::Do(const BeginNcclReceive& effect) {
  Answer(pair_->Receive(static_cast<int64_t>(effect.num_values * sizeof(float))));
}

void NcclEnd::Runner::Do(const AbortNccl&) {
  if (pair_) pair_->Abort();
}

void NcclEnd::Runner::Do(const NcclJoined& effect) {
  LogInfo("NCCL link joined", {{"epoch", effect.epoch}, {"version", nccl_.functions->version}});
  Tell(&Handlers::on_joined);
}

}  // namespace sauva
