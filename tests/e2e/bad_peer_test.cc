#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "net/channel.h"
#include "sauva/v1/control.grpc.pb.h"
#include "sauva/v1/stage.grpc.pb.h"
#include "tests/e2e/stream_client.h"

// What no generated client would send, from clients and from peers, against the real
// processes; and processes started where they cannot work.
namespace sauva {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  return *MakeChannel(address, {});
}

// The status of a call whose request is just these bytes.
grpc::Status SendBytes(const std::string& address, const std::string& method,
                       const std::string& bytes) {
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  SetDeadline(context);
  grpc::GenericStub stub(Connect(address));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, method, request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

// Says one thing on a stream that goes both ways and returns how the peer ends it.
template <class Stream, class Message, class Reply>
grpc::Status SayAndHear(Stream& stream, const Message& message, Reply reply) {
  stream.Write(message);
  while (stream.Read(&reply)) {
  }
  return stream.Finish();
}

class BadPeerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto started = TestCluster::Start({"--workers", "1"});
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }
  void TearDown() override {
    EXPECT_TRUE(Generate(cluster_->gateway(), TextRequest(Prompts()[0], 4)).status.ok())
        << "the cluster no longer serves";
  }

  static grpc::Status Join(const v1::WorkerHello& hello) {
    v1::WorkerMessage message;
    *message.mutable_hello() = hello;
    return Tell(message);
  }
  static grpc::Status Tell(const v1::WorkerMessage& message) {
    const auto stub = v1::CoordinatorService::NewStub(Connect(cluster_->coordinator()));
    grpc::ClientContext context;
    SetDeadline(context);
    const auto stream = stub->Join(&context);
    return SayAndHear(*stream, message, v1::CoordinatorMessage());
  }
  static grpc::Status Control(const v1::ControlMessage& message) {
    const auto stub =
        v1::WorkerService::NewStub(Connect(cluster_->Pipeline().stages[0].endpoint.address));
    grpc::ClientContext context;
    SetDeadline(context);
    const auto stream = stub->Control(&context);
    return SayAndHear(*stream, message, v1::ControlReply());
  }

  static inline std::unique_ptr<TestCluster> cluster_;
};

TEST_F(BadPeerTest, TextThatIsNotUtf8IsRefusedByFieldAndByte) {
  const std::string text = std::string("\x2a\x04", 2) + "ab\xc3(";  // GenerateRequest.text
  for (const char* method : {"Generate", "GenerateBatch", "Tokenize"}) {
    const std::string path = absl::StrCat("/sauva.v1.GenerationService/", method);
    const std::string name(method);
    // GenerateBatchRequest.requests[0].text; TokenizeRequest.text
    const std::string bytes = name == "Generate"        ? text
                              : name == "GenerateBatch" ? std::string("\x0a\x06") + text
                                                        : std::string("\x12\x04") + "ab\xc3(";
    const grpc::Status status = SendBytes(cluster_->gateway(), path, bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_THAT(status.error_message(), HasSubstr("text is not valid UTF-8 at byte 2")) << method;
  }
}

TEST_F(BadPeerTest, BytesThatAreNoMessageAreRefused) {
  const grpc::Status status =
      SendBytes(cluster_->gateway(), "/sauva.v1.GenerationService/Generate", "\xff\xff\xff\xff");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("sauva.v1.GenerateRequest"));
}

TEST_F(BadPeerTest, AWorkerOfAnotherVersionMayNotJoin) {
  v1::WorkerHello hello;
  hello.set_worker_id("from-another-time");
  hello.set_address("127.0.0.1:1");
  hello.set_protocol_version(kProtocolVersion + 1);
  hello.set_numerics_version(kNumericsVersion);
  const grpc::Status protocol = Join(hello);
  EXPECT_EQ(protocol.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(protocol.error_message(),
              AllOf(HasSubstr("from-another-time"),
                    HasSubstr(absl::StrCat("protocol version ", kProtocolVersion + 1)),
                    HasSubstr(absl::StrCat("this coordinator ", kProtocolVersion))));
  hello.set_protocol_version(kProtocolVersion);
  hello.set_numerics_version(kNumericsVersion + 1);
  const grpc::Status numerics = Join(hello);
  EXPECT_EQ(numerics.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(numerics.error_message(), HasSubstr("numerics version"));
  EXPECT_EQ(cluster_->Status()->workers.size(), 1u);
}

TEST_F(BadPeerTest, AHeadOfAnotherVersionIsRefusedByAStage) {
  v1::ControlMessage message;
  message.mutable_hello()->set_epoch(cluster_->Pipeline().epoch);
  message.mutable_hello()->set_protocol_version(kProtocolVersion + 1);
  const grpc::Status status = Control(message);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(),
              HasSubstr(absl::StrCat("protocol version ", kProtocolVersion + 1)));
}

TEST_F(BadPeerTest, NumbersThatNoEnumHasAreRefused) {
  v1::ControlMessage step;
  step.mutable_step()->add_sequences()->set_want(static_cast<v1::StepWant>(99));
  const grpc::Status want = Control(step);
  EXPECT_EQ(want.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(want.error_message(), HasSubstr("99"));

  v1::WorkerMessage report;
  v1::LoadStage& assignment = *report.mutable_stage_report()->mutable_assignment();
  assignment.add_stages()->mutable_layers()->set_last(1);
  report.mutable_stage_report()->set_phase(static_cast<v1::StagePhase>(77));
  const grpc::Status phase = Tell(report);
  EXPECT_EQ(phase.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(phase.error_message(), HasSubstr("77"));
}

TEST_F(BadPeerTest, AStreamOfAnotherEpochIsRefused) {
  v1::SequenceRequest request;
  request.set_epoch(1);
  request.add_prompt(5);
  request.mutable_sampling()->set_seed(1);
  request.mutable_sampling()->set_max_tokens(4);
  const auto stub =
      v1::WorkerService::NewStub(Connect(cluster_->Pipeline().stages[0].endpoint.address));
  grpc::ClientContext context;
  SetDeadline(context);
  const auto stream = stub->Generate(&context, request);
  v1::SequenceTokens tokens;
  EXPECT_FALSE(stream->Read(&tokens));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("epoch 1"));
}

// Each service says on which address it cannot listen, or which directory is not there,
// and ends with the exit code that docs/command_line.md gives it.
class BadPlaceTest : public BadPeerTest, public testing::WithParamInterface<const char*> {
 protected:
  static FinishedProcess Run(const std::string& listen, const std::string& metrics,
                             const std::string& model_dir) {
    const std::string name = GetParam();
    std::vector<std::string> command = {absl::StrCat(SAUVA_BINARY_DIR, "/sauva-", name), "--listen",
                                        listen, "--metrics", metrics};
    if (name != "coordinator") {
      command.insert(command.end(), {"--coordinator", cluster_->coordinator()});
    }
    if (name != "gateway") command.insert(command.end(), {"--model-dir", model_dir});
    if (name == "coordinator") command.insert(command.end(), {"--model", "prose"});
    if (name == "worker") command.insert(command.end(), {"--memory", "64MiB"});
    return RunProcess(command);
  }
  static std::string Models() { return std::filesystem::path(ModelDirectory()).parent_path(); }
};

TEST_P(BadPlaceTest, APortInUseIsNamed) {
  const FinishedProcess taken = Run(cluster_->gateway(), "127.0.0.1:0", Models());
  EXPECT_EQ(taken.exit_code, 3);
  EXPECT_THAT(taken.error, HasSubstr(cluster_->gateway()));
  const FinishedProcess metrics = Run("127.0.0.1:0", cluster_->http(), Models());
  EXPECT_EQ(metrics.exit_code, 3);
  EXPECT_THAT(metrics.error, HasSubstr(cluster_->http()));
}

TEST_P(BadPlaceTest, AModelDirectoryThatIsNotThereIsNamed) {
  if (std::string(GetParam()) == "gateway") return;  // it has none
  const FinishedProcess missing = Run("127.0.0.1:0", "127.0.0.1:0", "/nowhere/models");
  EXPECT_EQ(missing.exit_code, 4);
  EXPECT_THAT(missing.error, HasSubstr("/nowhere/models"));
}

INSTANTIATE_TEST_SUITE_P(Services, BadPlaceTest,
                         testing::Values("coordinator", "worker", "gateway"),
                         [](const auto& service) { return std::string(service.param); });

}  // namespace
}  // namespace sauva
