// The coordinator over gRPC, with workers played by the test.
#include "coordinator/coordinator_service.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <filesystem>
#include <thread>

#include "absl/time/clock.h"
#include "coordinator/coordinator_process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model_files.h"
#include "net/status_codec.h"
#include "proto/control_codec.h"
#include "sauva/v1/control.grpc.pb.h"
#include "tests/model/tiny_checkpoint.h"
#include "tests/net/unserved_health.h"

namespace sauva {
namespace {

using testing::HasSubstr;

std::string ModelPath() {
  static const std::string path = WriteTinyCheckpoint("coordinator_service", {.num_layers = 4});
  return path;
}

CoordinatorProcessConfig TestConfig() {
  const std::filesystem::path path = ModelPath();
  CoordinatorProcessConfig config;
  config.listen = "127.0.0.1:0";
  config.metrics.clear();
  config.model_dir = path.parent_path();
  config.model = path.filename();
  config.format.max_context = 64;
  config.coordinator.expected_workers = 1;
  return config;
}

class CoordinatorServiceTest : public testing::Test {
 protected:
  void Start(const CoordinatorProcessConfig& config) {
    auto started = CoordinatorProcess::Start(config, UnservedHealth());
    ASSERT_TRUE(started.ok()) << started.status();
    process_ = *std::move(started);
    stub_ = v1::CoordinatorService::NewStub(
        grpc::CreateChannel(process_->address(), grpc::InsecureChannelCredentials()));
  }

  absl::StatusOr<DispatchReply> Dispatch(const DispatchRequest& request, absl::Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    v1::DispatchRequest proto;
    ToProto(request, &proto);
    v1::DispatchResponse response;
    const grpc::Status status = stub_->Dispatch(&context, proto, &response);
    if (!status.ok()) return FromGrpc(status);
    return FromProto(response);
  }

  ClusterStatus Status() {
    grpc::ClientContext context;
    v1::StatusResponse response;
    EXPECT_TRUE(stub_->Status(&context, {}, &response).ok());
    return *FromProto(response);
  }

  std::unique_ptr<CoordinatorProcess> process_;
  std::unique_ptr<v1::CoordinatorService::Stub> stub_;
};

// A worker that loads and serves whatever it is told.
class TestWorker {
 public:
  TestWorker(v1::CoordinatorService::Stub& stub, const std::string& id)
      : stream_(stub.Join(&context_)) {
    hello_ = {.worker_id = id,
              .address = "127.0.0.1:1",
              .memory_bytes = 1'000'000'000,
              .read_bytes_per_second = 1e10,
              .operations_per_second = 1e11,
              .link_bytes_per_second = 1e9};
  }
  ~TestWorker() {
    context_.TryCancel();
    if (!finished_) stream_->Finish();
  }

  bool Say(const WorkerMessage& message) { return stream_->Write(ToProto(message)); }
  bool Hello() { return Say(hello_); }
  std::optional<CoordinatorMessage> Hear() {
    v1::CoordinatorMessage proto;
    if (!stream_->Read(&proto)) return std::nullopt;
    return *FromProto(proto);
  }
  grpc::Status Finish() {
    finished_ = true;
    return stream_->Finish();
  }

  // From the hello to a serving stage.
  void Serve() {
    ASSERT_TRUE(Hello());
    ASSERT_TRUE(std::holds_alternative<Welcome>(*Hear()));
    StageReport report{.assignment = std::get<StageAssignment>(*Hear()),
                       .phase = StagePhase::kLoaded,
                       .max_kv_blocks = 32};
    Say(report);
    report.num_kv_blocks = std::get<StartStage>(*Hear()).num_kv_blocks;
    EXPECT_EQ(report.num_kv_blocks, 32u);
    report.phase = StagePhase::kServing;
    Say(report);
  }

  WorkerHello hello_;

 private:
  bool finished_ = false;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
};

TEST_F(CoordinatorServiceTest, AWorkerJoinsLoadsServesAndGetsRequests) {
  Start(TestConfig());
  TestWorker worker(*stub_, "w");
  worker.Serve();
  const auto reply = Dispatch({.num_tokens = 10}, absl::Seconds(10));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->head_address, "127.0.0.1:1");
  EXPECT_EQ(reply->max_context, 64u);
  const ClusterStatus status = Status();
  ASSERT_EQ(status.pipelines.size(), 1u);
  EXPECT_EQ(status.pipelines[0].epoch, reply->epoch);
  EXPECT_EQ(status.pipelines[0].stages[0].endpoint.layers, (LayerRange{0, 4}));
}

TEST_F(CoordinatorServiceTest, ADispatchWaitsForAPipeline) {
  Start(TestConfig());
  absl::StatusOr<DispatchReply> reply;
  std::thread caller([&] { reply = Dispatch({}, absl::Seconds(20)); });
  while (Status().waiting_dispatches == 0) std::this_thread::yield();
  TestWorker worker(*stub_, "w");
  worker.Serve();
  caller.join();
  EXPECT_TRUE(reply.ok()) << reply.status();
}

TEST_F(CoordinatorServiceTest, ADispatchEndsAtItsDeadlineAndLeavesTheWaitingList) {
  Start(TestConfig());
  EXPECT_EQ(Dispatch({}, absl::Milliseconds(100)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  while (Status().waiting_dispatches != 0) std::this_thread::yield();
}

TEST_F(CoordinatorServiceTest, AnUnknownModelIsNotFound) {
  Start(TestConfig());
  const absl::Status status = Dispatch({.model = "other"}, absl::Seconds(5)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr(TestConfig().model));
}

TEST_F(CoordinatorServiceTest, AJoinOfAnotherProtocolVersionIsRefusedNamingBoth) {
  Start(TestConfig());
  TestWorker worker(*stub_, "w");
  worker.hello_.protocol_version = 77;
  ASSERT_TRUE(worker.Hello());
  EXPECT_FALSE(worker.Hear().has_value());
  const grpc::Status status = worker.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("protocol version 77, this coordinator 1"));
}

TEST_F(CoordinatorServiceTest, AJoinThatDoesNotBeginWithHelloIsInvalid) {
  Start(TestConfig());
  TestWorker worker(*stub_, "w");
  worker.Say(Heartbeat{});
  EXPECT_FALSE(worker.Hear().has_value());
  EXPECT_EQ(worker.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(CoordinatorServiceTest, ASecondHelloOnAStreamIsInvalidAndLosesTheWorker) {
  CoordinatorProcessConfig config = TestConfig();
  config.coordinator.expected_workers = 2;
  Start(config);
  TestWorker worker(*stub_, "w");
  worker.Hello();
  ASSERT_TRUE(worker.Hear().has_value());
  worker.Hello();
  EXPECT_FALSE(worker.Hear().has_value());
  EXPECT_EQ(worker.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  while (!Status().workers.empty()) std::this_thread::yield();
}

TEST_F(CoordinatorServiceTest, AWorkerWhoseStreamEndsIsLost) {
  CoordinatorProcessConfig config = TestConfig();
  config.coordinator.expected_workers = 2;
  Start(config);
  {
    TestWorker worker(*stub_, "w");
    worker.Hello();
    ASSERT_TRUE(worker.Hear().has_value());
    EXPECT_EQ(Status().workers.size(), 1u);
  }
  while (!Status().workers.empty()) std::this_thread::yield();
}

TEST_F(CoordinatorServiceTest, ModelFilesComeWholeAndOnlyWhenTheDigestIsNew) {
  Start(TestConfig());
  const auto fetch = [&](const std::string& digest) {
    grpc::ClientContext context;
    v1::GetModelFilesRequest request;
    request.set_digest(digest);
    const auto reader = stub_->GetModelFiles(&context, request);
    ModelFiles files;
    std::string found;
    v1::ModelFileChunk chunk;
    while (reader->Read(&chunk)) {
      if (chunk.has_model()) found = chunk.model().digest();
      if (!chunk.name().empty()) files[chunk.name()] += chunk.data();
    }
    EXPECT_TRUE(reader->Finish().ok());
    return std::pair(found, files);
  };
  const auto [digest, files] = fetch("");
  EXPECT_EQ(files, *ReadModelFiles(ModelPath()));
  EXPECT_TRUE(files.contains("config.json"));
  const auto [same, none] = fetch(digest);
  EXPECT_EQ(same, digest);
  EXPECT_TRUE(none.empty());
}

TEST_F(CoordinatorServiceTest, LoadModelServesAModelUnderTheDirectoryAndNothingElse) {
  CoordinatorProcessConfig config = TestConfig();
  const std::string model = config.model;
  config.model.clear();
  Start(config);
  const auto load = [&](const std::string& name) {
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_model(name);
    v1::LoadModelResponse response;
    return stub_->LoadModel(&context, request, &response);
  };
  EXPECT_EQ(load("absent").error_code(), grpc::StatusCode::NOT_FOUND);
  for (const std::string& bad : std::vector<std::string>{"", "..", "../" + model, "/etc"}) {
    EXPECT_EQ(load(bad).error_code(), grpc::StatusCode::INVALID_ARGUMENT) << bad;
  }
  EXPECT_TRUE(load(model).ok());
  EXPECT_TRUE(load(model).ok());
  TestWorker worker(*stub_, "w");
  worker.Serve();
  EXPECT_TRUE(Dispatch({.model = model}, absl::Seconds(10)).ok());
}

TEST_F(CoordinatorServiceTest, DrainOfAnUnknownWorkerIsNotFound) {
  Start(TestConfig());
  grpc::ClientContext context;
  v1::DrainRequest request;
  request.set_worker_id("nobody");
  v1::DrainResponse response;
  EXPECT_EQ(stub_->Drain(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(CoordinatorServiceTest, ShutDownEndsWaitingCallsAndStreams) {
  CoordinatorProcessConfig config = TestConfig();
  config.coordinator.expected_workers = 2;
  Start(config);
  TestWorker worker(*stub_, "w");
  worker.Hello();
  ASSERT_TRUE(worker.Hear().has_value());
  absl::StatusOr<DispatchReply> reply;
  std::thread caller([&] { reply = Dispatch({}, absl::Seconds(60)); });
  while (Status().waiting_dispatches == 0) std::this_thread::yield();
  process_->ShutDown();
  caller.join();
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(worker.Hear().has_value());
  EXPECT_EQ(worker.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(CoordinatorServiceTest, ModelsAndPortsThatAreNotThereAreNamed) {
  CoordinatorProcessConfig config = TestConfig();
  config.model = "absent";
  const absl::Status absent = CoordinatorProcess::Start(config, UnservedHealth()).status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(absent.message(), HasSubstr("absent"));
  Start(TestConfig());
  config = TestConfig();
  config.listen = process_->address();
  const absl::Status taken = CoordinatorProcess::Start(config, UnservedHealth()).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(taken.message(), HasSubstr(process_->address()));
}

TEST_F(CoordinatorServiceTest, MoreMemoryThanTheWorkerHasIsRefusedInStatus) {
  Start(TestConfig());
  TestWorker worker(*stub_, "w");
  worker.hello_.memory_bytes = 1000;
  worker.Hello();
  ASSERT_TRUE(worker.Hear().has_value());
  while (Status().placement_error.empty()) std::this_thread::yield();
  EXPECT_THAT(Status().placement_error, HasSubstr("have 1000 bytes"));
}

}  // namespace
}  // namespace sauva
