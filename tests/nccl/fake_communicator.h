#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "kernels/nccl_abi.h"
#include "kernels/transfer_memory.h"

namespace sauva::nccl {

// A communicator of two ranks that meet at a Unix socket and move bytes of the host through
// it, in the way of a non-blocking one: every call begins something, State says how it goes,
// a transfer is done when its stream is.
// Thread: the caller's; the work is done by a thread of its own.
class Communicator {
 public:
  // `folder` is where tests lay what shall go wrong: a file `stall` is taken by the first
  // transfer that sees it, which then never ends; while a file `no-connect` is there no rank
  // meets another. `name` is a file of the folder until both ranks have met.
  Communicator(std::string folder, std::string name, int rank);
  // Aborts, whatever it is doing.
  ~Communicator();

  // What the last failure in this process was, in more words.
  static const char* LastError() { return last_error_.load(); }

  Result State() const { return state_.load(); }
  Result Begin(bool sends, void* data, size_t size, HostStream* stream);

 private:
  struct Transfer {
    bool sends = false;
    void* data = nullptr;
    size_t size = 0;
    HostStream* stream = nullptr;
  };

  void Run();
  bool Meet();
  bool Move(const Transfer& transfer);
  bool MoveAll(bool sends, void* data, size_t size) const;
  bool Wait(int descriptor, short events) const;
  void Fail(Result result);

  static std::atomic<const char*> last_error_;

  const std::string folder_;
  const std::string path_;     // of the socket
  const std::string id_path_;  // there until both ranks have met
  const int rank_;
  int socket_ = -1;
  std::atomic<Result> state_{kInProgress};
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  Transfer next_;         // guarded by mutex_
  bool waiting_ = false;  // guarded by mutex_; next_ is to be done
  std::thread thread_;
};

}  // namespace sauva::nccl
