#include "worker/step_runner.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

// Whether what was loaded for one assignment serves another: all but its place in time and
// among workers is equal. Memory that was left for links by NCCL is not needed by others.
bool SameLayers(const StageAssignment& a, const StageAssignment& b) {
  return a.model == b.model && a.layers() == b.layers() && a.is_head() == b.is_head() &&
         a.is_last() == b.is_last() && a.weight_format == b.weight_format &&
         a.kv_type == b.kv_type && a.kv_memory_bytes == b.kv_memory_bytes &&
         (a.sends_by_nccl() || !b.sends_by_nccl()) &&
         (a.receives_by_nccl() || !b.receives_by_nccl()) && a.max_context == b.max_context &&
         a.max_step_tokens == b.max_step_tokens && a.max_sequences == b.max_sequences;
}

}  // namespace

StepRunner::StepRunner(Loader loader, Tell tell, size_t capacity)
    : loader_(std::move(loader)),
      tell_(std::move(tell)),
      queue_(capacity),
      thread_([this] { Run(); }) {}

StepRunner::~StepRunner() { Stop(); }

void StepRunner::Stop() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

StageMemory StepRunner::memory() const {
  const std::lock_guard lock(mutex_);
  return memory_;
}

void StepRunner::Remember(const StageMemory& memory) {
  const std::lock_guard lock(mutex_);
  memory_ = memory;
}

void StepRunner::Run() {
  while (std::optional<EngineWork> work = queue_.Pop()) {
    std::visit([this](auto& w) { Execute(w); }, *work);
  }
}

void StepRunner::Execute(LoadLayers& work) {
  const StageAssignment& wanted = work.assignment;
  epoch_ = wanted.epoch;
  if (hosted_.stage == nullptr || !SameLayers(assignment_, wanted)) {
    hosted_.stage.reset();  // both would not fit
    hosted_.backend.reset();
    Remember({});
    absl::StatusOr<HostedStage> hosted = loader_(wanted);
    if (!hosted.ok()) return tell_(StageLoaded{.epoch = epoch_, .status = hosted.status()});
    hosted_ = *std::move(hosted);
    Remember({.weight_bytes = hosted_.loaded.weight_bytes,
              .scratch_bytes = static_cast<uint64_t>(hosted_.stage->scratch_bytes()),
              .link_bytes = hosted_.link_bytes});
  }
  assignment_ = wanted;
  tell_(StageLoaded{.epoch = epoch_, .status = absl::OkStatus(), .stage = hosted_.loaded});
}

void StepRunner::Execute(AllocateKv& work) {
  if (hosted_.stage == nullptr) return;  // a later load has failed: its epoch is over
  epoch_ = work.epoch;
  const absl::Status status = hosted_.stage->AllocateKv(static_cast<int>(work.num_kv_blocks));
  StageMemory memory = this->memory();
  memory.kv_bytes =
      status.ok() ? work.num_kv_blocks * static_cast<uint64_t>(hosted_.stage->kv_block_bytes()) : 0;
  Remember(memory);
  tell_(KvAllocated{.epoch = epoch_, .status = status, .kv_bytes = memory.kv_bytes});
}

void StepRunner::Execute(OpenSequence& work) {
  if (hosted_.stage == nullptr) return;
  const absl::Status status = hosted_.stage->Open(work);
  if (!status.ok()) tell_(OpenFailed{.epoch = epoch_, .status = status});
}

void StepRunner::Execute(CloseSequence& work) {
  if (hosted_.stage != nullptr) hosted_.stage->Close(work.id);
}

void StepRunner::Execute(ComputeStep& work) {
  if (hosted_.stage == nullptr) return;
  const auto begin = std::chrono::steady_clock::now();
  StageOutput output;
  StepComputed done{.epoch = work.header.epoch, .step_id = work.header.step_id};
  done.status = hosted_.stage->RunStep(work.header, work.hidden, output);
  done.hidden = std::move(output.hidden);
  done.sampled = std::move(output.sampled);
  done.compute_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  tell_(std::move(done));
}

}  // namespace sauva
