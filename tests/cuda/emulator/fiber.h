#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "absl/functional/function_ref.h"

namespace sauva::emulator {

// A function with a stack of its own, which may pause in the middle.
// Thread: all fibers and who resumes them run on one thread.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Begins `function`, what it refers to outlives its run; the fiber before has ended.
  void Start(absl::FunctionRef<void()> function);
  // Runs until the function pauses or ends.
  void Resume();
  // Called by the function: goes back to who resumed it.
  void Pause();
  bool done() const { return done_; }

 private:
  struct Context;
  static void Run(Fiber& fiber);
  void SwitchIn();
  void SwitchOut(bool last);

  std::unique_ptr<Context> context_;
  std::optional<absl::FunctionRef<void()>> function_;
  bool done_ = true;
};

}  // namespace sauva::emulator
