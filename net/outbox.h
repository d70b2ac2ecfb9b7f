#pragma once

#include <cstddef>
#include <deque>
#include <utility>

namespace sauva {

// The messages of a stream that wait for their turn, since gRPC writes one at a time; and
// the end of the stream, which comes after them.
// Thread: its owner's lock is held.
template <class Message>
class Outbox {
 public:
  explicit Outbox(size_t capacity) : capacity_(capacity) {}

  // Takes a message unless the stream is ending or `capacity` messages wait.
  bool Push(Message message) {
    if (ending_ || waiting_.size() >= capacity_) return false;
    waiting_.push_back(std::move(message));
    return true;
  }

  // The message to hand to gRPC now, or null while one is on its way or none waits. It
  // stays in place until Written.
  const Message* Next() {
    if (writing_ || waiting_.empty()) return nullptr;
    writing_ = true;
    return &waiting_.front();
  }

  void Written() {
    writing_ = false;
    waiting_.pop_front();
  }

  // No further message is taken; those that wait are still written.
  void End() { ending_ = true; }

  // As End, and those that wait are dropped, except one that gRPC still reads.
  void Break() {
    ending_ = true;
    while (waiting_.size() > (writing_ ? 1u : 0u)) waiting_.pop_back();
  }

  // True once, when the stream is ending and all is written.
  bool TakeEnd() {
    if (!ending_ || writing_ || !waiting_.empty() || ended_) return false;
    return ended_ = true;
  }

 private:
  const size_t capacity_;
  std::deque<Message> waiting_;
  bool writing_ = false;
  bool ending_ = false;
  bool ended_ = false;
};

}  // namespace sauva
