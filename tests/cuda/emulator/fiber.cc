#include "tests/cuda/emulator/fiber.h"

#include <boost/context/detail/fcontext.hpp>

#include "base/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace sauva::emulator {
namespace {

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

constexpr size_t kStackBytes = 64 << 10;

// The address sanitizer must know which stack runs. `save` is null when a fiber ends.
void AnnounceSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                    [[maybe_unused]] size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}
void AnnounceArrival([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                     [[maybe_unused]] size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(saved, bottom, size);
#endif
}

}  // namespace

struct Fiber::Context {
  std::unique_ptr<std::byte[]> stack{new std::byte[kStackBytes]};
  fcontext_t fiber = nullptr;
  fcontext_t resumer = nullptr;
  void* fiber_shadow = nullptr;
  void* resumer_shadow = nullptr;
  const void* resumer_stack = nullptr;
  size_t resumer_stack_bytes = 0;
};

Fiber::Fiber() : context_(std::make_unique<Context>()) {}
Fiber::~Fiber() = default;

void Fiber::Start(absl::FunctionRef<void()> function) {
  Check(done_, "a fiber ends before it starts again");
  function_.emplace(function);
  done_ = false;
  context_->fiber_shadow = nullptr;
  context_->fiber =
      make_fcontext(context_->stack.get() + kStackBytes, kStackBytes, [](transfer_t from) {
        auto& fiber = *static_cast<Fiber*>(from.data);
        fiber.context_->resumer = from.fctx;
        Run(fiber);
      });
}

void Fiber::Run(Fiber& fiber) {
  Context& context = *fiber.context_;
  AnnounceArrival(nullptr, &context.resumer_stack, &context.resumer_stack_bytes);
  (*fiber.function_)();
  fiber.done_ = true;
  fiber.SwitchOut(true);
}

void Fiber::Resume() { SwitchIn(); }
void Fiber::Pause() { SwitchOut(false); }

void Fiber::SwitchIn() {
  Context& context = *context_;
  AnnounceSwitch(&context.resumer_shadow, context.stack.get(), kStackBytes);
  const transfer_t back = jump_fcontext(context.fiber, this);
  context.fiber = back.fctx;
  AnnounceArrival(context.resumer_shadow, nullptr, nullptr);
}

void Fiber::SwitchOut(bool last) {
  Context& context = *context_;
  AnnounceSwitch(last ? nullptr : &context.fiber_shadow, context.resumer_stack,
                 context.resumer_stack_bytes);
  const transfer_t again = jump_fcontext(context.resumer, nullptr);
  context.resumer = again.fctx;
  AnnounceArrival(context.fiber_shadow, &context.resumer_stack, &context.resumer_stack_bytes);
}

}  // namespace sauva::emulator
