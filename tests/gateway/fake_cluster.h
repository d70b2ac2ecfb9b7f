#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/tokenizer.h"
#include "net/server.h"
#include "proto/control.h"
#include "proto/control_codec.h"
#include "proto/generation.h"
#include "proto/generation_codec.h"
#include "sauva/v1/control.grpc.pb.h"
#include "sauva/v1/stage.grpc.pb.h"

namespace sauva::testing {

inline constexpr int kEndToken = 256;
inline constexpr int kVocabSize = 257;
inline constexpr uint32_t kContext = 512;

// config.json and tokenizer.json of a model whose first 256 tokens are the bytes and whose
// last is the end of a text.
ModelFiles ByteModelFiles();

// A condition that other threads make true; a test waits for it with a limit.
class Signal {
 public:
  void Set() {
    {
      const std::lock_guard lock(mutex_);
      set_ = true;
    }
    changed_.notify_all();
  }
  bool Wait(absl::Duration limit = absl::Seconds(20)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, absl::ToChronoMilliseconds(limit), [&] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// Polls `condition` until it holds or 20 s have passed; returns whether it holds.
bool Eventually(const std::function<bool()>& condition);

// A head as a gateway sees it. Without a script it says the bytes of `text` one by one and
// then the end, going on where the request resumes.
class FakeHead final : public v1::WorkerService::Service {
 public:
  class Stream {
   public:
    Stream(grpc::ServerContext& context, grpc::ServerWriter<v1::SequenceTokens>& writer)
        : context_(context), writer_(writer) {}
    bool Hello(const std::string& numerics_id);
    bool Say(uint32_t first_index, const std::vector<TokenId>& tokens,
             FinishReason finish = FinishReason::kNone);
    bool Say(const SequenceTokens& tokens);
    // Says the rest of `text` from the resumed tokens on, at most `limit` bytes of it, and
    // the end when nothing is left.
    void Continue(const SequenceRequest& request, const std::string& text,
                  size_t limit = std::string::npos);
    bool IsCancelled() const { return context_.IsCancelled(); }
    // Waits for the gateway to give this stream up; false when it does not within 20 s.
    bool WaitForCancel() const;
    grpc::ServerContext& context() { return context_; }

   private:
    grpc::ServerContext& context_;
    grpc::ServerWriter<v1::SequenceTokens>& writer_;
  };
  using Script = std::function<grpc::Status(const SequenceRequest&, Stream&)>;

  explicit FakeHead(std::string text, std::string numerics_id = "n1");
  ~FakeHead() override { Stop(); }

  void SetScript(Script script);
  void Stop();  // breaks every stream
  const std::string& address() const { return server_->address(); }
  std::vector<SequenceRequest> requests() const;

  grpc::Status Generate(grpc::ServerContext* context, const v1::SequenceRequest* request,
                        grpc::ServerWriter<v1::SequenceTokens>* writer) override;

 private:
  mutable std::mutex mutex_;
  Script script_;
  std::vector<SequenceRequest> requests_;
  std::unique_ptr<RpcServer> server_;
};

// A coordinator that dispatches to heads in turn: the first whose epoch (its place in the
// list, from 1) the request does not call broken.
class FakeCoordinator final : public v1::CoordinatorService::Service {
 public:
  // address: with port 0 a free one is taken.
  explicit FakeCoordinator(std::vector<FakeHead*> heads,
                           const std::string& address = "127.0.0.1:0");
  ~FakeCoordinator() override { Stop(); }

  void Stop();
  void SetReadyPipelines(uint32_t count);
  // Replaces the answer to every later dispatch.
  void SetDispatch(std::function<absl::StatusOr<DispatchReply>(const DispatchRequest&)> dispatch);
  const std::string& address() const { return server_->address(); }
  std::vector<DispatchRequest> dispatches() const;

  grpc::Status Dispatch(grpc::ServerContext* context, const v1::DispatchRequest* request,
                        v1::DispatchResponse* response) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::StatusRequest* request,
                      v1::StatusResponse* response) override;
  grpc::Status GetModelFiles(grpc::ServerContext* context, const v1::GetModelFilesRequest* request,
                             grpc::ServerWriter<v1::ModelFileChunk>* writer) override;

 private:
  absl::StatusOr<DispatchReply> Choose(const DispatchRequest& request) const;

  const std::vector<FakeHead*> heads_;
  mutable std::mutex mutex_;
  uint32_t ready_pipelines_ = 1;
  std::vector<DispatchRequest> dispatches_;
  std::function<absl::StatusOr<DispatchReply>(const DispatchRequest&)> dispatch_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace sauva::testing
