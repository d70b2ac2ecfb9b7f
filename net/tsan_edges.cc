// Part of builds with the thread sanitizer only. The packaged gRPC and Abseil are not
// instrumented, so that the sanitizer does not see how they order what they are given: by
// mutexes, an operation before its callback, a call's callbacks before its OnDone, the start of
// a server before its first call, callbacks before the end of their server. Here these orders,
// and no others, are told to it: the functions below stand before the packaged ones. Without
// them every object handed through gRPC looks like a race.
#include <dlfcn.h>
#include <grpc/grpc.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/server_callback.h>
#include <link.h>
#include <sanitizer/tsan_interface.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "base/check.h"

namespace sauva {
namespace {

using Tag = grpc_completion_queue_functor;
using Run = void (*)(Tag*, int);

char server_started;  // an address each, for the sanitizer
char callback_ended;

// The callbacks that tags came with. Relaxed throughout: this table must order nothing itself.
constexpr size_t kMaxCallbacks = 16;
std::array<std::atomic<Run>, kMaxCallbacks> callbacks;

template <size_t i>
void RunOrdered(Tag* tag, int ok) {
  __tsan_acquire(tag);
  callbacks[i].load(std::memory_order_relaxed)(tag, ok);
  __tsan_release(&callback_ended);
}

template <size_t... i>
constexpr std::array<Run, sizeof...(i)> AllOrdered(std::index_sequence<i...>) {
  return {RunOrdered<i>...};
}
constexpr std::array<Run, kMaxCallbacks> kOrdered =
    AllOrdered(std::make_index_sequence<kMaxCallbacks>());

int IsCode(dl_phdr_info* module, size_t, void* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = module->dlpi_phdr[i];
    const uintptr_t begin = module->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD && (part.p_flags & PF_X) != 0 && wanted >= begin &&
        wanted < begin + part.p_memsz) {
      return 1;
    }
  }
  return 0;
}

// The callback that stands for `run`; `run` itself when it is one already.
Run Ordered(Run run) {
  for (size_t i = 0; i < kMaxCallbacks; ++i) {
    if (run == kOrdered[i]) return run;
    Run known = nullptr;
    if (callbacks[i].compare_exchange_strong(known, run, std::memory_order_relaxed) ||
        known == run) {
      return kOrdered[i];
    }
  }
  Check(false, "there are fewer kinds of callbacks than places for them");
  return run;
}

template <class F>
F* Next(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  Check(found != nullptr, "gRPC has the function that stands behind this one");
  return reinterpret_cast<F*>(found);
}

}  // namespace
}  // namespace sauva

// Mutexes of Abseil, which gRPC locks; ours are of the standard library.
namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static auto* const next = sauva::Next<void(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  next(this);
  __tsan_acquire(this);
}

bool Mutex::TryLock() {
  static auto* const next = sauva::Next<bool(Mutex*)>("_ZN4absl7debian35Mutex7TryLockEv");
  const bool locked = next(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::Unlock() {
  static auto* const next = sauva::Next<void(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(this);
  next(this);
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const next =
      sauva::Next<void(CondVar*, Mutex*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  next(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const next = sauva::Next<bool(CondVar*, Mutex*, Duration)>(
      "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool expired = next(this, mutex, timeout);
  __tsan_acquire(mutex);
  return expired;
}

ABSL_NAMESPACE_END
}  // namespace absl

// What gRPC does on threads of its executor is done here on threads of their own, whose start
// the sanitizer sees: as gRPC 1.51 has these functions otherwise.
namespace grpc::internal {

void ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  if (inline_ondone) return CallOnDone();
  std::thread([this] { CallOnDone(); }).detach();
}

void ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  // The call's thread left its reactor with this count, in code that is instrumented.
  on_cancel_conditions_remaining_.load(std::memory_order_acquire);
  if (reactor->InternalInlineable()) return reactor->OnCancel();
  Ref();  // the call outlives the thread
  std::thread([this, reactor] {
    reactor->OnCancel();
    MaybeDone();
  }).detach();
}

void ClientReactor::InternalScheduleOnDone(grpc::Status status) {
  std::thread([this, status = std::move(status)] { OnDone(status); }).detach();
}

}  // namespace grpc::internal

extern "C" {

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t num_ops,
                                      void* tag, void* reserved) {
  static auto* const next = sauva::Next<decltype(grpc_call_start_batch)>("grpc_call_start_batch");
  // A tag of a callback begins with a function, one of a polled queue with a table of them.
  auto* const functor = static_cast<grpc_completion_queue_functor*>(tag);
  if (functor != nullptr &&
      dl_iterate_phdr(sauva::IsCode, reinterpret_cast<void*>(functor->functor_run)) != 0) {
    functor->functor_run = sauva::Ordered(functor->functor_run);
  }
  __tsan_release(tag);
  return next(call, ops, num_ops, tag, reserved);
}

void grpc_server_start(grpc_server* server) {
  static auto* const next = sauva::Next<decltype(grpc_server_start)>("grpc_server_start");
  __tsan_release(&sauva::server_started);
  next(server);
}

// The first thing that gRPC does with a call that came in.
void grpc_call_ref(grpc_call* call) {
  static auto* const next = sauva::Next<decltype(grpc_call_ref)>("grpc_call_ref");
  __tsan_acquire(&sauva::server_started);
  next(call);
}

void grpc_server_destroy(grpc_server* server) {
  static auto* const next = sauva::Next<decltype(grpc_server_destroy)>("grpc_server_destroy");
  next(server);
  __tsan_acquire(&sauva::callback_ended);
}

}  // extern "C"
