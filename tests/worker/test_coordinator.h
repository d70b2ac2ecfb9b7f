#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "net/server.h"
#include "net/server_stream.h"
#include "proto/control_codec.h"
#include "sauva/v1/control.grpc.pb.h"

namespace sauva {

// The coordinator's end of Join, with a test in the place of its mind.
// Thread: any.
class TestCoordinator final : public v1::CoordinatorService::CallbackService {
 public:
  explicit TestCoordinator(const std::string& address = "127.0.0.1:0");
  ~TestCoordinator() override;

  const std::string& address() const { return server_->address(); }

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Join(
      grpc::CallbackServerContext* context) override;

  // What a worker has said on its newest stream.
  struct Member {
    WorkerHello hello;
    std::vector<StageReport> reports;  // those of heartbeats too
    std::vector<StageBroken> broken;
    std::vector<Heartbeat> heartbeats;
    std::shared_ptr<ServerStream<v1::WorkerMessage, v1::CoordinatorMessage>> stream;

    bool Said(uint64_t epoch, StagePhase phase) const;
  };

  // Waits, for at most 20 s, until `done` holds; false when it does not.
  bool WaitUntil(const std::function<bool(std::map<std::string, Member>&)>& done);
  bool WaitForPhase(const std::string& worker_id, uint64_t epoch, StagePhase phase);
  Member member(const std::string& worker_id);

  void Send(const std::string& worker_id, const CoordinatorMessage& message);

  // Loads and starts a pipeline; true when every stage serves.
  bool StartPipeline(const StageAssignment& assignment);

 private:
  void Take(uint64_t connection, const v1::WorkerMessage& message);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, std::shared_ptr<ServerStream<v1::WorkerMessage, v1::CoordinatorMessage>>>
      streams_;
  std::map<uint64_t, std::string> worker_of_;
  std::map<std::string, Member> members_;
  uint64_t last_connection_ = 0;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace sauva
