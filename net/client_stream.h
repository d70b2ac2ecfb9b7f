#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "net/outbox.h"

// Client ends of streaming calls for gRPC's callback API:
//
//   auto stream = ClientStream<Out, In>::Make(64);
//   stub.async()->Join(&stream->context(), stream->reactor());
//   stream->Start(stream, {.on_message = …, .on_closed = …});
namespace sauva {

// A call that both sides write to.
// Shared: the caller holds the stream to send on it, and the stream holds itself until
// gRPC has let go of it.
// Thread: Send, End and Cancel from any thread; handlers run on gRPC's threads, one at a time.
template <class Out, class In>
class ClientStream final : private grpc::ClientBidiReactor<Out, In> {
 public:
  struct Handlers {
    std::function<void(In)> on_message;
    std::function<void(const grpc::Status&)> on_closed;  // once, last
  };

  // At most max_waiting messages wait to be written.
  static std::shared_ptr<ClientStream> Make(size_t max_waiting) {
    return std::shared_ptr<ClientStream>(new ClientStream(max_waiting));
  }

  grpc::ClientContext& context() { return context_; }
  grpc::ClientBidiReactor<Out, In>* reactor() { return this; }

  // Begins the call, after the stub was told of context and reactor.
  void Start(std::shared_ptr<ClientStream> self, Handlers handlers) {
    self_ = std::move(self);
    handlers_ = std::move(handlers);
    this->AddHold();  // for writes from other threads; dropped when reading ends
    this->StartRead(&in_);
    this->StartCall();
  }

  // Returns false when the stream has ended or too much waits: the caller cancels then.
  bool Send(Out message) {
    const std::lock_guard lock(mutex_);
    if (!outbox_.Push(std::move(message))) return false;
    Advance();
    return true;
  }

  // Half-closes once what waits is written; the server is expected to end the call.
  void End() {
    const std::lock_guard lock(mutex_);
    outbox_.End();
    Advance();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  explicit ClientStream(size_t max_waiting) : outbox_({.messages = max_waiting}) {}

  void OnReadDone(bool ok) override {
    if (ok) {
      handlers_.on_message(std::exchange(in_, In()));
      this->StartRead(&in_);
      return;
    }
    const std::lock_guard lock(mutex_);
    broken_ = true;
    outbox_.Break();
    this->RemoveHold();
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    outbox_.Written();
    if (!ok) outbox_.Break();
    Advance();
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<ClientStream> last = std::move(self_);
    handlers_.on_closed(status);
    handlers_ = {};
  }
  void Advance() {  // mutex_ held
    if (broken_) return;
    if (const Out* next = outbox_.Next()) this->StartWrite(next);
    if (outbox_.TakeEnd()) this->StartWritesDone();
  }

  grpc::ClientContext context_;
  std::mutex mutex_;
  Outbox<Out> outbox_;
  bool broken_ = false;
  In in_;
  Handlers handlers_;
  std::shared_ptr<ClientStream> self_;
};

// A call with one request and many responses. Sharing and threads as ClientStream.
template <class In>
class ClientReader final : private grpc::ClientReadReactor<In> {
 public:
  struct Handlers {
    std::function<void(In)> on_message;
    std::function<void(const grpc::Status&)> on_closed;  // once, last
  };

  static std::shared_ptr<ClientReader> Make() {
    return std::shared_ptr<ClientReader>(new ClientReader);
  }

  grpc::ClientContext& context() { return context_; }
  grpc::ClientReadReactor<In>* reactor() { return this; }

  // Begins the call, after the stub was told of context, request and reactor. The request
  // need not outlive the stub's call.
  void Start(std::shared_ptr<ClientReader> self, Handlers handlers) {
    self_ = std::move(self);
    handlers_ = std::move(handlers);
    this->StartRead(&in_);
    this->StartCall();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  ClientReader() = default;

  void OnReadDone(bool ok) override {
    if (!ok) return;
    handlers_.on_message(std::exchange(in_, In()));
    this->StartRead(&in_);
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<ClientReader> last = std::move(self_);
    handlers_.on_closed(status);
    handlers_ = {};
  }

  grpc::ClientContext context_;
  In in_;
  Handlers handlers_;
  std::shared_ptr<ClientReader> self_;
};

}  // namespace sauva
