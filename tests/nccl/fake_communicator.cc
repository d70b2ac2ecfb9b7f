#include "tests/nccl/fake_communicator.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

namespace sauva::nccl {
namespace {

constexpr int kLookMs = 2;  // how soon an abort is seen

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

}  // namespace

std::atomic<const char*> Communicator::last_error_{""};

Communicator::Communicator(std::string folder, std::string name, int rank)
    : folder_(std::move(folder)),
      path_(folder_ + "/socket-" + name),
      id_path_(folder_ + "/" + name),
      rank_(rank),
      thread_([this] { Run(); }) {}

Communicator::~Communicator() {
  aborted_ = true;
  wake_.notify_one();
  thread_.join();
  if (socket_ >= 0) close(socket_);
}

Result Communicator::Begin(bool sends, void* data, size_t size, HostStream* stream) {
  const std::lock_guard lock(mutex_);
  if (state_.load() != kSuccess || waiting_) return kInvalidUsage;
  next_ = {sends, data, size, stream};
  waiting_ = true;
  state_ = kInProgress;
  wake_.notify_one();
  return kInProgress;
}

void Communicator::Run() {
  if (!Meet()) return Fail(kSystemError);
  state_ = kSuccess;
  while (!aborted_) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(kLookMs),
                   [this] { return waiting_ || aborted_; });
    if (!waiting_ || aborted_) continue;
    const Transfer transfer = next_;
    waiting_ = false;
    ++transfer.stream->pending;
    state_ = kSuccess;  // queued on its stream
    lock.unlock();
    const bool moved = Move(transfer);
    if (!moved) Fail(kRemoteError);
    --transfer.stream->pending;
  }
}

void Communicator::Fail(Result result) {
  if (!aborted_) state_ = result;
}

// Rank 0 listens, rank 1 asks until it does.
bool Communicator::Meet() {
  if (access((folder_ + "/no-connect").c_str(), F_OK) == 0) {
    last_error_ = "connect: no route to host";
    return false;
  }
  const sockaddr_un address = AddressOf(path_);
  const auto* raw = reinterpret_cast<const sockaddr*>(&address);
  if (rank_ == 0) {
    const int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listening, raw, sizeof address) == 0 && listen(listening, 1) == 0 &&
        Wait(listening, POLLIN)) {
      socket_ = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
    }
    close(listening);
    unlink(path_.c_str());
    if (socket_ >= 0) unlink(id_path_.c_str());
    return socket_ >= 0;
  }
  while (!aborted_) {
    const int asking = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(asking, raw, sizeof address) == 0) {
      socket_ = asking;
      return true;
    }
    close(asking);
    std::this_thread::sleep_for(std::chrono::milliseconds(kLookMs));
  }
  return false;
}

bool Communicator::Move(const Transfer& transfer) {
  if (unlink((folder_ + "/stall").c_str()) == 0) {
    while (!aborted_) std::this_thread::sleep_for(std::chrono::milliseconds(kLookMs));
    return false;
  }
  uint64_t size = transfer.size;  // both ranks must mean the same
  if (!MoveAll(transfer.sends, &size, sizeof size) || size != transfer.size) return false;
  return MoveAll(transfer.sends, transfer.data, transfer.size);
}

bool Communicator::MoveAll(bool sends, void* data, size_t size) const {
  auto* bytes = static_cast<char*>(data);
  while (size > 0) {
    if (!Wait(socket_, sends ? POLLOUT : POLLIN)) return false;
    const ssize_t moved = sends ? send(socket_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT)
                                : recv(socket_, bytes, size, MSG_DONTWAIT);
    if (moved <= 0) return false;  // the other process is gone
    bytes += moved;
    size -= static_cast<size_t>(moved);
  }
  return true;
}

bool Communicator::Wait(int descriptor, short events) const {
  pollfd ready{.fd = descriptor, .events = events, .revents = 0};
  while (!aborted_) {
    if (poll(&ready, 1, kLookMs) > 0) return true;
  }
  return false;
}

}  // namespace sauva::nccl
