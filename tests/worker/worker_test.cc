#include "worker/worker.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/model.h"
#include "net/channel.h"
#include "net/status_codec.h"
#include "proto/generation_codec.h"
#include "proto/stage_codec.h"
#include "sauva/v1/stage.grpc.pb.h"
#include "tests/model/tiny_checkpoint.h"
#include "tests/net/unserved_health.h"
#include "tests/worker/test_coordinator.h"

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int kLayers = 6;

struct Answer {
  std::vector<TokenId> tokens;
  std::string numerics_id;
  FinishReason finish = FinishReason::kNone;
  absl::Status status;
};

std::string HttpGet(const std::string& address, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
    out.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return out;
}

// Real workers with a real, tiny model, joined by gRPC on loopback.
class WorkerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = WriteTinyCheckpoint("worker_test_model", {.num_layers = kLayers});
    model_ = OpenModel(directory_)->name;
    digest_ = OpenModel(directory_)->digest;
  }

  WorkerConfig Config(int index) const {
    WorkerConfig config;
    config.coordinator = coordinator_->address();
    config.model_dir = std::filesystem::path(directory_).parent_path();
    config.memory_bytes = 64 << 20;
    config.metrics = "";  // its server takes seconds to stop
    config.threads = 1;
    config.worker_id = Name(index);
    return config;
  }
  static std::string Name(int index) { return absl::StrCat("w", index); }

  Worker& StartWorker(int index) { return StartWorker(index, Config(index)); }
  Worker& StartWorker(int index, const WorkerConfig& config) {
    auto worker = Worker::Start(config, UnservedHealth());
    EXPECT_TRUE(worker.ok()) << worker.status();
    workers_[index] = *std::move(worker);
    EXPECT_TRUE(coordinator_->WaitUntil(
        [&](auto& members) { return members[Name(index)].stream != nullptr; }));
    return *workers_[index];
  }

  // kLayers over these workers as evenly as it goes.
  StageAssignment Assignment(uint64_t epoch, const std::vector<int>& workers) {
    StageAssignment assignment{.epoch = epoch, .model = {model_, digest_}};
    const int num_stages = static_cast<int>(workers.size());
    for (int i = 0; i < num_stages; ++i) {
      const int worker = workers[static_cast<size_t>(i)];
      assignment.stages.push_back(
          {.worker_id = Name(worker),
           .address = workers_.at(worker)->address(),
           .layers = {kLayers * i / num_stages, kLayers * (i + 1) / num_stages}});
    }
    assignment.max_step_tokens = 32;
    assignment.max_sequences = 8;
    assignment.numerics_id = "tiny";
    return assignment;
  }

  static SequenceRequest Request(uint64_t epoch, std::vector<TokenId> prompt, int max_tokens) {
    SequenceRequest request{.epoch = epoch, .request_id = "test", .prompt = std::move(prompt)};
    request.sampling.seed = 11;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    return request;
  }

  static std::unique_ptr<v1::WorkerService::Stub> StubOf(const std::string& address) {
    return v1::WorkerService::NewStub(*MakeChannel(address, {}));
  }

  // `on_token` is called with the number of tokens so far.
  Answer Generate(
      int head, const SequenceRequest& request, grpc::ClientContext& context,
      const std::function<void(size_t)>& on_token = [](size_t) {}) {
    v1::SequenceRequest message;
    ToProto(request, &message);
    const auto reader = StubOf(workers_.at(head)->address())->Generate(&context, message);
    Answer answer;
    v1::SequenceTokens tokens;
    while (reader->Read(&tokens)) {
      const SequenceTokens said = *FromProto(tokens);
      if (!said.numerics_id.empty()) answer.numerics_id = said.numerics_id;
      answer.tokens.insert(answer.tokens.end(), said.tokens.begin(), said.tokens.end());
      answer.finish = said.finish;
      on_token(answer.tokens.size());
    }
    answer.status = FromGrpc(reader->Finish());
    return answer;
  }
  Answer Generate(int head, const SequenceRequest& request) {
    grpc::ClientContext context;
    return Generate(head, request, context);
  }

  // The last report of a worker says that nothing runs and every block is free.
  bool WaitUntilFree(int worker) {
    return coordinator_->WaitUntil([&](auto& members) {
      const auto& reports = members[Name(worker)].reports;
      return !reports.empty() && reports.back().running_sequences == 0 &&
             reports.back().waiting_sequences == 0 &&
             reports.back().free_kv_blocks == reports.back().num_kv_blocks;
    });
  }

  static std::string directory_;
  static std::string model_;
  static std::string digest_;
  std::unique_ptr<TestCoordinator> coordinator_ = std::make_unique<TestCoordinator>();
  std::map<int, std::unique_ptr<Worker>> workers_;
};

std::string WorkerTest::directory_;
std::string WorkerTest::model_;
std::string WorkerTest::digest_;

TEST_F(WorkerTest, TokensAreTheSameOverAnyNumberOfStages) {
  for (int i = 0; i < 3; ++i) StartWorker(i);
  const std::vector<std::vector<int>> pipelines = {{0}, {0, 1}, {2, 0, 1}};
  std::vector<std::vector<TokenId>> greedy;
  std::vector<std::vector<TokenId>> sampled;
  uint64_t epoch = 0;
  for (const std::vector<int>& workers : pipelines) {
    ASSERT_TRUE(coordinator_->StartPipeline(Assignment(++epoch, workers)));
    SequenceRequest request = Request(epoch, std::vector<TokenId>(40, 3), 50);
    request.sampling.temperature = 3;  // random weights are too sure of themselves
    const Answer warm = Generate(workers[0], request);
    ASSERT_TRUE(warm.status.ok()) << warm.status;
    EXPECT_EQ(warm.numerics_id, "tiny");
    EXPECT_EQ(warm.finish, FinishReason::kLength);
    sampled.push_back(warm.tokens);
    request.sampling.temperature = 0;
    greedy.push_back(Generate(workers[0], request).tokens);
    for (const int worker : workers) {
      EXPECT_TRUE(coordinator_->WaitUntil([&](auto& members) {
        const StageReport& report = members[Name(worker)].reports.back();
        return report.assignment.epoch == epoch && report.steps_done >= 100;
      })) << "each stage has computed each step";
    }
  }
  EXPECT_THAT(sampled[0], SizeIs(50));
  EXPECT_GE(std::set<TokenId>(sampled[0].begin(), sampled[0].end()).size(), 20u);
  EXPECT_NE(sampled[0], greedy[0]);
  for (size_t i = 1; i < pipelines.size(); ++i) {
    EXPECT_EQ(sampled[i], sampled[0]) << pipelines[i].size() << " stages";
    EXPECT_EQ(greedy[i], greedy[0]) << pipelines[i].size() << " stages";
  }
}

TEST_F(WorkerTest, ALostWorkerEndsStreamsThatANewEpochContinues) {
  for (int i = 0; i < 3; ++i) StartWorker(i);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(1, {0, 1, 2})));
  const Answer whole = Generate(0, Request(1, {1, 2, 3}, 90));
  ASSERT_TRUE(whole.status.ok()) << whole.status;

  grpc::ClientContext context;
  std::thread killer;
  const Answer broken = Generate(0, Request(1, {1, 2, 3}, 90), context, [&](size_t num_tokens) {
    if (num_tokens == 5) killer = std::thread([&] { workers_.at(1).reset(); });
  });
  killer.join();
  EXPECT_TRUE(absl::IsUnavailable(broken.status)) << broken.status;
  ASSERT_GE(broken.tokens.size(), 5u);
  ASSERT_LT(broken.tokens.size(), 90u);
  EXPECT_TRUE(coordinator_->WaitUntil([](auto& members) {
    return !members["w0"].broken.empty() && !members["w2"].broken.empty();
  }));

  StartWorker(3);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(2, {0, 3, 2})));
  SequenceRequest rest = Request(2, {1, 2, 3}, 90);
  rest.resumed = broken.tokens;
  const Answer resumed = Generate(0, rest);
  ASSERT_TRUE(resumed.status.ok()) << resumed.status;
  std::vector<TokenId> all = broken.tokens;
  all.insert(all.end(), resumed.tokens.begin(), resumed.tokens.end());
  EXPECT_EQ(all, whole.tokens);
}

TEST_F(WorkerTest, ManyStreamsAtOnceAreEachWhatTheyAreAlone) {
  for (int i = 0; i < 2; ++i) StartWorker(i);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(1, {0, 1})));
  std::vector<Answer> alone(16);
  std::vector<Answer> together(16);
  const auto request = [](size_t i) {
    return Request(1, std::vector<TokenId>(1 + 3 * i, static_cast<TokenId>(i)), 30);
  };
  for (size_t i = 0; i < alone.size(); ++i) alone[i] = Generate(0, request(i));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < together.size(); ++i) {
    threads.emplace_back([&, i] { together[i] = Generate(0, request(i)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < alone.size(); ++i) {
    ASSERT_TRUE(together[i].status.ok()) << together[i].status;
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << "stream " << i;
    EXPECT_THAT(together[i].tokens, SizeIs(30));
  }
}

TEST_F(WorkerTest, CancelledAndLateStreamsGiveTheirMemoryBack) {
  StartWorker(0);
  StartWorker(1);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(1, {0, 1})));
  grpc::ClientContext cancelled;
  const Answer answer = Generate(0, Request(1, {1}, 120), cancelled, [&](size_t num_tokens) {
    if (num_tokens == 3) cancelled.TryCancel();
  });
  EXPECT_TRUE(absl::IsCancelled(answer.status)) << answer.status;
  EXPECT_TRUE(WaitUntilFree(0));
  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(Generate(0, Request(1, {1}, 120), late).status));
  EXPECT_TRUE(WaitUntilFree(0));
  EXPECT_TRUE(Generate(0, Request(1, {1}, 20)).status.ok());
}

TEST_F(WorkerTest, ARestartedCoordinatorHearsWhatIsServed) {
  StartWorker(0);
  StartWorker(1);
  const StageAssignment assignment = Assignment(1, {0, 1});
  ASSERT_TRUE(coordinator_->StartPipeline(assignment));
  const std::string address = coordinator_->address();
  coordinator_.reset();
  EXPECT_TRUE(Generate(0, Request(1, {1}, 20)).status.ok()) << "served on";
  coordinator_ = std::make_unique<TestCoordinator>(address);
  ASSERT_TRUE(coordinator_->WaitUntil([](auto& members) {
    return members["w0"].hello.stage.has_value() && members["w1"].hello.stage.has_value();
  }));
  const WorkerHello hello = coordinator_->member("w1").hello;
  EXPECT_EQ(hello.stage->phase, StagePhase::kServing);
  EXPECT_EQ(hello.stage->assignment.epoch, 1u);
  EXPECT_EQ(hello.stage->assignment.stages, assignment.stages);
  EXPECT_GE(hello.stage->steps_done, 20u);
  EXPECT_EQ(hello.address, workers_.at(1)->address());
  EXPECT_GT(hello.read_bytes_per_second, 0);
  EXPECT_THAT(coordinator_->member("w0").broken, IsEmpty());
}

TEST_F(WorkerTest, LoadsThatCannotBeAreReportedWithTheReason) {
  WorkerConfig small = Config(0);
  small.memory_bytes = 100 << 10;
  StartWorker(0, small);
  uint64_t epoch = 0;
  const auto error_of = [&](const std::function<void(StageAssignment&)>& spoil) {
    StageAssignment assignment = Assignment(++epoch, {0});
    spoil(assignment);
    coordinator_->Send("w0", assignment);
    EXPECT_TRUE(coordinator_->WaitForPhase("w0", epoch, StagePhase::kFailed));
    return coordinator_->member("w0").reports.back().error;
  };
  EXPECT_THAT(error_of([](auto&) {}),
              testing::AllOf(HasSubstr("RESOURCE_EXHAUSTED"), HasSubstr("memory budget"),
                             HasSubstr("102400")));
  EXPECT_THAT(
      error_of([](auto& a) { a.model.digest = "other"; }),
      testing::AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("other"), HasSubstr(digest_)));
  EXPECT_THAT(error_of([](auto& a) { a.model.name = "nobody"; }), HasSubstr("NOT_FOUND"));
  EXPECT_THAT(error_of([](auto& a) { a.model.name = "../etc"; }),
              HasSubstr("'../etc' is no name of a model"));
  EXPECT_THAT(error_of([](auto& a) { a.weight_format = "int1"; }), HasSubstr("int1"));
  EXPECT_THAT(error_of([](auto& a) { a.stages[0].layers.last = 7; }), HasSubstr("layers [0, 7)"));
}

TEST_F(WorkerTest, RequestsForWhatIsNotServedAreRefused) {
  StartWorker(0);
  EXPECT_TRUE(absl::IsUnavailable(Generate(0, Request(1, {1}, 5)).status));
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(4, {0})));
  EXPECT_TRUE(absl::IsFailedPrecondition(Generate(0, Request(3, {1}, 5)).status));
  EXPECT_TRUE(absl::IsInvalidArgument(Generate(0, Request(4, {260}, 5)).status));
  SequenceRequest no_seed = Request(4, {1}, 5);
  no_seed.sampling.seed.reset();
  EXPECT_TRUE(absl::IsInvalidArgument(Generate(0, no_seed).status));
  EXPECT_TRUE(Generate(0, Request(4, {1}, 5)).status.ok());
}

TEST_F(WorkerTest, PeersThatMakeNoSenseAreRefusedAndHarmNobody) {
  StartWorker(0);
  StartWorker(1);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(1, {0, 1})));
  const auto stub = StubOf(workers_.at(1)->address());
  {
    grpc::ClientContext context;
    const auto control = stub->Control(&context);
    v1::ControlMessage message;
    message.mutable_hello()->set_epoch(1);
    control->Write(message);
    EXPECT_EQ(control->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  }
  {
    grpc::ClientContext context;
    const auto control = stub->Control(&context);
    control->Write(v1::ControlMessage());
    EXPECT_EQ(control->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  {
    grpc::ClientContext context;
    const auto link = stub->Link(&context);
    v1::HiddenFrame frame;
    frame.set_total_bytes(4);
    frame.set_data("four");
    link->Write(frame);
    EXPECT_EQ(link->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  }
  EXPECT_TRUE(Generate(0, Request(1, {1}, 5)).status.ok());
  EXPECT_THAT(coordinator_->member("w1").broken, IsEmpty());
}

TEST_F(WorkerTest, DrainingEndsRunningStreamsInOrder) {
  StartWorker(0);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(1, {0})));
  grpc::ClientContext context;
  std::thread drainer;
  const Answer answer = Generate(0, Request(1, {1}, 100), context, [&](size_t num_tokens) {
    if (num_tokens == 3) drainer = std::thread([&] { workers_.at(0)->Drain(); });
  });
  drainer.join();
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_THAT(answer.tokens, SizeIs(100));
  EXPECT_TRUE(coordinator_->member("w0").heartbeats.back().draining);
}

TEST_F(WorkerTest, MetricsTellWhatAStageDoes) {
  WorkerConfig config = Config(0);
  config.metrics = "127.0.0.1:0";
  StartWorker(0, config);
  ASSERT_TRUE(coordinator_->StartPipeline(Assignment(1, {0})));
  ASSERT_TRUE(Generate(0, Request(1, {1, 2, 3}, 20)).status.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Generate(0, Request(1, {260}, 5)).status));
  std::string page;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  do {
    page = HttpGet(workers_.at(0)->metrics_address(), "/metrics");
  } while (page.find("sauva_refusals_total{reason=\"invalid_argument\"} 1") == std::string::npos &&
           absl::Now() < deadline);
  for (const char* line :
       {"sauva_num_requests_running 0", "sauva_num_requests_waiting 0",
        "sauva_kv_cache_usage_perc 0", "sauva_prompt_tokens_total 3",
        "sauva_generation_tokens_total 20", "sauva_stage_steps_total 20",
        "sauva_stage_step_seconds_count 20", "sauva_num_preemptions_total 0",
        "sauva_request_success_total{finished_reason=\"length\"} 1",
        "sauva_refusals_total{reason=\"invalid_argument\"} 1",
        "sauva_memory_bytes{share=\"weights\"}", "sauva_memory_budget_bytes 67108864",
        "sauva_link_bytes_total{direction=\"sent\"} 0", "sauva_epoch_number 1",
        "sauva_stale_messages_total 0", "sauva_stage_serving 1"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST_F(WorkerTest, APortInUseIsAnErrorThatNamesIt) {
  Worker& first = StartWorker(0);
  WorkerConfig config = Config(1);
  config.listen = first.address();
  const auto second = Worker::Start(config, UnservedHealth());
  EXPECT_TRUE(absl::IsUnavailable(second.status()));
  EXPECT_THAT(second.status().message(), HasSubstr(first.address()));
}

}  // namespace
}  // namespace sauva
