#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <deque>
#include <limits>
#include <utility>

#include "net/outbox_memory.h"

namespace sauva {

// About what a message takes of memory while it waits.
template <class Message>
size_t MemoryOf(const Message& message) {
  return message.SpaceUsedLong();
}
inline size_t MemoryOf(const grpc::ByteBuffer& message) {
  constexpr size_t kBookkeeping = 192;  // the buffer's own and its slice's
  return message.Length() + kBookkeeping;
}

// How much may wait in one outbox.
struct OutboxLimits {
  size_t messages = 1;
  size_t bytes = std::numeric_limits<size_t>::max();  // of memory; a lone message may be larger
  OutboxMemory* memory = nullptr;  // shared with other outboxes, outlives them; null: none

  bool by_bytes() const { return memory != nullptr || bytes != std::numeric_limits<size_t>::max(); }
};

// The messages of a stream that wait for their turn, since gRPC writes one at a time; and
// the end of the stream, which comes after them.
// Thread: its owner's lock is held.
template <class Message>
class Outbox {
 public:
  explicit Outbox(const OutboxLimits& limits) : limits_(limits) {}
  ~Outbox() {
    while (!waiting_.empty()) DropLast();
  }
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Takes a message unless the stream is ending or as much waits as may.
  bool Push(Message message) {
    if (ending_ || waiting_.size() >= limits_.messages) return false;
    // Messages are measured only where it matters: it costs a walk through their fields.
    const size_t bytes = limits_.by_bytes() ? MemoryOf(message) : 0;
    if (!waiting_.empty() && waiting_bytes_ + bytes > limits_.bytes) return false;
    if (limits_.memory != nullptr && !limits_.memory->Take(bytes, waiting_bytes_)) return false;
    waiting_bytes_ += bytes;
    waiting_.push_back({std::move(message), bytes});
    return true;
  }

  // The message to hand to gRPC now, or null while one is on its way or none waits. It
  // stays in place until Written.
  const Message* Next() {
    if (writing_ || waiting_.empty()) return nullptr;
    writing_ = true;
    return &waiting_.front().message;
  }

  void Written() {
    writing_ = false;
    Release(waiting_.front().bytes);
    waiting_.pop_front();
  }

  // No further message is taken; those that wait are still written.
  void End() { ending_ = true; }

  // As End, and those that wait are dropped, except one that gRPC still reads.
  void Break() {
    ending_ = true;
    while (waiting_.size() > (writing_ ? 1u : 0u)) DropLast();
  }

  // True once, when the stream is ending and all is written.
  bool TakeEnd() {
    if (!ending_ || writing_ || !waiting_.empty() || ended_) return false;
    return ended_ = true;
  }

 private:
  struct Waiting {
    Message message;
    size_t bytes = 0;
  };

  void DropLast() {
    Release(waiting_.back().bytes);
    waiting_.pop_back();
  }
  void Release(size_t bytes) {
    waiting_bytes_ -= bytes;
    if (limits_.memory != nullptr) limits_.memory->Return(bytes);
  }

  const OutboxLimits limits_;
  std::deque<Waiting> waiting_;
  size_t waiting_bytes_ = 0;
  bool writing_ = false;
  bool ending_ = false;
  bool ended_ = false;
};

}  // namespace sauva
