#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace sauva::emulator {

// A function with a stack of its own, which may pause in the middle.
// Thread: all fibers and who resumes them run on one thread.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Begins `function`, which must outlive its run; the fiber before has ended.
  void Start(const std::function<void()>& function);
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
  const std::function<void()>* function_ = nullptr;
  bool done_ = true;
};

}  // namespace sauva::emulator
