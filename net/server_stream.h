#pragma once

#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "net/outbox.h"

// Server ends of streaming calls for gRPC's callback API. A service method makes one,
// returns what Listen gives; any thread may Send and Finish.
namespace sauva {

// The sending half of a server's call, whatever it receives; Reactor is gRPC's.
// Shared: the service's owner holds the call to send on it, and the call holds itself
// until gRPC has let go of it.
// Thread: Send and Finish from any thread.
template <class Reactor, class Out>
class ServerSender : protected Reactor {
 public:
  // Returns false when the call has ended or too much waits: the caller ends it then.
  bool Send(Out message) {
    const std::lock_guard lock(mutex_);
    if (!outbox_.Push(std::move(message))) return false;
    Advance();
    return true;
  }

  // Ends the call with `status` once what waits is written. The first one counts.
  void Finish(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    SetStatus(status);
    outbox_.End();
    Advance();
  }

 protected:
  explicit ServerSender(const OutboxLimits& limits) : outbox_(limits) {}

  // To be told of the shared pointer that holds this object, before the call begins.
  void HoldUntilDone(std::shared_ptr<ServerSender> self) { self_ = std::move(self); }

  // The handlers go: they may hold this object.
  virtual void DropHandlers() = 0;

  // Ends the call; what waits is dropped.
  void Break() {
    const std::lock_guard lock(mutex_);
    SetStatus(grpc::Status::CANCELLED);
    outbox_.Break();
    Advance();
  }

  void OnCancel() override { Break(); }

 private:
  void OnWriteDone(bool ok) final {
    const std::lock_guard lock(mutex_);
    outbox_.Written();
    if (!ok) {
      SetStatus(grpc::Status::CANCELLED);
      outbox_.Break();
    }
    Advance();
  }
  void OnDone() final {
    const std::shared_ptr<ServerSender> last = std::move(self_);
    DropHandlers();
  }

  void SetStatus(const grpc::Status& status) {  // mutex_ held
    if (!std::exchange(ending_, true)) status_ = status;
  }
  void Advance() {  // mutex_ held
    if (const Out* next = outbox_.Next()) this->StartWrite(next);
    if (outbox_.TakeEnd()) Reactor::Finish(status_);
  }

  std::mutex mutex_;
  Outbox<Out> outbox_;
  grpc::Status status_;
  bool ending_ = false;
  std::shared_ptr<ServerSender> self_;
};

// A call that both sides write to. Handlers run on gRPC's threads, one at a time.
template <class In, class Out>
class ServerStream final : public ServerSender<grpc::ServerBidiReactor<In, Out>, Out> {
 public:
  struct Handlers {
    std::function<void(In)> on_message;
    std::function<void()> on_closed;  // once; no message follows, and the call ends by itself
  };

  static std::shared_ptr<ServerStream> Make(const OutboxLimits& limits) {
    auto stream = std::shared_ptr<ServerStream>(new ServerStream(limits));
    stream->HoldUntilDone(stream);
    return stream;
  }

  // Begins reading. Handlers may come before this returns.
  grpc::ServerBidiReactor<In, Out>* Listen(Handlers handlers) {
    handlers_ = std::move(handlers);
    this->StartRead(&in_);
    return this;
  }

 private:
  using Sender = ServerSender<grpc::ServerBidiReactor<In, Out>, Out>;
  explicit ServerStream(const OutboxLimits& limits) : Sender(limits) {}

  void OnReadDone(bool ok) override {
    if (ok) {
      handlers_.on_message(std::exchange(in_, In()));
      this->StartRead(&in_);
      return;
    }
    handlers_.on_closed();
    Sender::Finish(grpc::Status::OK);
  }
  void DropHandlers() override { handlers_ = {}; }

  In in_;
  Handlers handlers_;
};

// A call with one request and many responses.
template <class Out>
class ServerWriter final : public ServerSender<grpc::ServerWriteReactor<Out>, Out> {
 public:
  static std::shared_ptr<ServerWriter> Make(const OutboxLimits& limits) {
    auto writer = std::shared_ptr<ServerWriter>(new ServerWriter(limits));
    writer->HoldUntilDone(writer);
    return writer;
  }

  // on_cancelled: the client gave up, vanished, or its deadline passed. At most once, and
  // not after the call has ended.
  grpc::ServerWriteReactor<Out>* Listen(std::function<void()> on_cancelled) {
    const std::lock_guard lock(handler_mutex_);
    on_cancelled_ = std::move(on_cancelled);
    return this;
  }

 private:
  using Sender = ServerSender<grpc::ServerWriteReactor<Out>, Out>;
  explicit ServerWriter(const OutboxLimits& limits) : Sender(limits) {}

  void OnCancel() override {
    Sender::OnCancel();
    if (const std::function<void()> on_cancelled = TakeHandler()) on_cancelled();
  }
  void DropHandlers() override { TakeHandler(); }

  std::function<void()> TakeHandler() {
    const std::lock_guard lock(handler_mutex_);
    return std::exchange(on_cancelled_, nullptr);
  }

  std::mutex handler_mutex_;
  std::function<void()> on_cancelled_;
};

}  // namespace sauva
