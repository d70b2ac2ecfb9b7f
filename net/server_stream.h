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

// A call that both sides write to.
// Shared: the service's owner holds the stream to send on it, and the stream holds itself
// until gRPC has let go of it.
// Thread: Send and Finish from any thread; handlers run on gRPC's threads, one at a time.
template <class In, class Out>
class ServerStream final : private grpc::ServerBidiReactor<In, Out> {
 public:
  struct Handlers {
    std::function<void(In)> on_message;
    std::function<void()> on_closed;  // once; no message follows, and the call ends by itself
  };

  // At most max_waiting messages wait to be written.
  static std::shared_ptr<ServerStream> Make(size_t max_waiting) {
    auto stream = std::shared_ptr<ServerStream>(new ServerStream(max_waiting));
    stream->self_ = stream;
    return stream;
  }

  // Begins reading. Handlers may come before this returns.
  grpc::ServerBidiReactor<In, Out>* Listen(Handlers handlers) {
    handlers_ = std::move(handlers);
    this->StartRead(&in_);
    return this;
  }

  // Returns false when the stream has ended or too much waits: the caller ends the call.
  bool Send(Out message) {
    const std::lock_guard lock(mutex_);
    if (!outbox_.Push(std::move(message))) return false;
    Advance();
    return true;
  }

  // Ends the call with `status` once what waits is written. The first one counts.
  void Finish(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    End(status, /*keep_waiting=*/true);
  }

 private:
  explicit ServerStream(size_t max_waiting) : outbox_(max_waiting) {}

  void OnReadDone(bool ok) override {
    if (ok) {
      handlers_.on_message(std::exchange(in_, In()));
      this->StartRead(&in_);
      return;
    }
    handlers_.on_closed();
    Finish(grpc::Status::OK);
  }
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    outbox_.Written();
    if (!ok) End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "stream broken"), false);
    Advance();
  }
  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    End(grpc::Status::CANCELLED, false);
  }
  void OnDone() override {
    const std::shared_ptr<ServerStream> last = std::move(self_);
    handlers_ = {};  // they may hold us
  }

  void End(const grpc::Status& status, bool keep_waiting) {  // mutex_ held
    if (!ending_) status_ = status;
    ending_ = true;
    keep_waiting ? outbox_.End() : outbox_.Break();
    Advance();
  }
  void Advance() {  // mutex_ held
    if (const Out* next = outbox_.Next()) this->StartWrite(next);
    if (outbox_.TakeEnd()) grpc::ServerBidiReactor<In, Out>::Finish(status_);
  }

  std::mutex mutex_;
  Outbox<Out> outbox_;
  grpc::Status status_;
  bool ending_ = false;
  In in_;
  Handlers handlers_;
  std::shared_ptr<ServerStream> self_;
};

// A call with one request and many responses. Sharing and threads as ServerStream.
template <class Out>
class ServerWriter final : private grpc::ServerWriteReactor<Out> {
 public:
  static std::shared_ptr<ServerWriter> Make(size_t max_waiting) {
    auto writer = std::shared_ptr<ServerWriter>(new ServerWriter(max_waiting));
    writer->self_ = writer;
    return writer;
  }

  // on_cancelled: the client gave up, vanished, or its deadline passed. At most once, and
  // not after the call has ended.
  grpc::ServerWriteReactor<Out>* Listen(std::function<void()> on_cancelled) {
    const std::lock_guard lock(mutex_);
    on_cancelled_ = std::move(on_cancelled);
    return this;
  }

  // Returns false when the call has ended or too much waits.
  bool Send(Out message) {
    const std::lock_guard lock(mutex_);
    if (!outbox_.Push(std::move(message))) return false;
    Advance();
    return true;
  }

  // Ends the call with `status` once what waits is written. The first one counts.
  void Finish(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    End(status, /*keep_waiting=*/true);
  }

 private:
  explicit ServerWriter(size_t max_waiting) : outbox_(max_waiting) {}

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    outbox_.Written();
    if (!ok) End(grpc::Status::CANCELLED, false);
    Advance();
  }
  void OnCancel() override {
    std::function<void()> on_cancelled;
    {
      const std::lock_guard lock(mutex_);
      End(grpc::Status::CANCELLED, false);
      on_cancelled = std::exchange(on_cancelled_, nullptr);
    }
    if (on_cancelled) on_cancelled();
  }
  void OnDone() override {
    const std::shared_ptr<ServerWriter> last = std::move(self_);
    on_cancelled_ = nullptr;  // it may hold us
  }

  void End(const grpc::Status& status, bool keep_waiting) {  // mutex_ held
    if (!ending_) status_ = status;
    ending_ = true;
    keep_waiting ? outbox_.End() : outbox_.Break();
    Advance();
  }
  void Advance() {  // mutex_ held
    if (const Out* next = outbox_.Next()) this->StartWrite(next);
    if (outbox_.TakeEnd()) grpc::ServerWriteReactor<Out>::Finish(status_);
  }

  std::mutex mutex_;
  Outbox<Out> outbox_;
  grpc::Status status_;
  bool ending_ = false;
  std::function<void()> on_cancelled_;
  std::shared_ptr<ServerWriter> self_;
};

}  // namespace sauva
