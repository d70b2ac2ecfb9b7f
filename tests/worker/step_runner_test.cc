#include "worker/step_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "kernels/factory.h"

namespace sauva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Calls = std::vector<std::string>;

class RecordingStage final : public Stage {
 public:
  explicit RecordingStage(Calls& calls) : calls_(calls) {}
  ~RecordingStage() override { calls_.push_back("freed"); }

  int64_t weight_bytes() const override { return 1000; }
  int64_t scratch_bytes() const override { return 100; }
  int64_t kv_block_bytes() const override { return 10; }
  absl::Status AllocateKv(int num_blocks) override {
    calls_.push_back(absl::StrCat("kv ", num_blocks));
    return absl::OkStatus();
  }
  absl::Status Open(const OpenSequence& sequence) override {
    calls_.push_back(absl::StrCat("open ", sequence.id));
    return sequence.tokens.empty() ? absl::InvalidArgumentError("no tokens") : absl::OkStatus();
  }
  void Close(SequenceId id) override { calls_.push_back(absl::StrCat("close ", id)); }
  absl::Status RunStep(const StepHeader& header, std::span<const float> hidden,
                       StageOutput& output) override {
    calls_.push_back(absl::StrCat("step ", header.step_id));
    output.hidden.assign(hidden.begin(), hidden.end());
    return absl::OkStatus();
  }

 private:
  Calls& calls_;
};

class StepRunnerTest : public testing::Test {
 protected:
  StepRunnerTest()
      : events_(100),
        runner_([this](const StageAssignment& assignment) { return Load(assignment); },
                [this](EngineEvent event) { EXPECT_TRUE(events_.TryPush(std::move(event))); }) {}
  ~StepRunnerTest() override { runner_.Stop(); }

  absl::StatusOr<HostedStage> Load(const StageAssignment& assignment) {
    calls_.push_back(absl::StrCat("load ", assignment.layers().first));
    if (assignment.model.name == "none") return absl::NotFoundError("no such model");
    HostedStage hosted{.backend = MakeReferenceBackend(),
                       .stage = std::make_unique<RecordingStage>(calls_)};
    hosted.loaded = {.max_kv_blocks = 7, .weight_bytes = 1000};
    return hosted;
  }

  static StageAssignment Assignment(uint64_t epoch, int first_layer = 0) {
    StageAssignment assignment{.epoch = epoch, .model = {"m", "d"}};
    assignment.stages = {{.layers = {first_layer, first_layer + 2}}};
    return assignment;
  }

  template <class T>
  T Next() {
    auto event = events_.PopUntil(std::chrono::steady_clock::now() + std::chrono::seconds(20));
    if (!event || !std::holds_alternative<T>(*event)) {
      ADD_FAILURE() << "another event was expected";
      return {};
    }
    return std::get<T>(*std::move(event));
  }
  StageLoaded LoadNow(const StageAssignment& assignment) {
    EXPECT_TRUE(runner_.Do(LoadLayers{assignment}));
    return Next<StageLoaded>();
  }

  Calls calls_;  // of the step thread, read when an event has come
  BoundedQueue<EngineEvent> events_;
  StepRunner runner_;
};

TEST_F(StepRunnerTest, AnAssignmentOfEqualLayersReloadsNothing) {
  EXPECT_TRUE(LoadNow(Assignment(1)).status.ok());
  const StageLoaded again = LoadNow(Assignment(2));
  EXPECT_EQ(again.epoch, 2u);
  EXPECT_EQ(again.stage.max_kv_blocks, 7u);
  EXPECT_THAT(calls_, ElementsAre("load 0"));
}

TEST_F(StepRunnerTest, OtherLayersFormatsOrLimitsAreLoadedAfterTheOldOnesAreFreed) {
  LoadNow(Assignment(1));
  LoadNow(Assignment(2, 4));
  EXPECT_THAT(calls_, ElementsAre("load 0", "freed", "load 4"));
  for (const auto& change : std::vector<std::function<void(StageAssignment&)>>{
           [](auto& a) { a.model.digest = "e"; }, [](auto& a) { a.weight_format = "int8"; },
           [](auto& a) { a.kv_type = "f16"; }, [](auto& a) { a.max_context = 9; },
           [](auto& a) { a.max_step_tokens = 9; }, [](auto& a) { a.max_sequences = 9; },
           [](auto& a) { a.kv_memory_bytes = 9; }}) {
    LoadNow(Assignment(3, 4));
    calls_.clear();
    StageAssignment changed = Assignment(4, 4);
    change(changed);
    LoadNow(changed);
    EXPECT_THAT(calls_, ElementsAre("freed", "load 4"));
  }
}

TEST_F(StepRunnerTest, AFailedLoadIsToldAndLeavesNothing) {
  LoadNow(Assignment(1));
  StageAssignment missing = Assignment(2);
  missing.model.name = "none";
  EXPECT_TRUE(absl::IsNotFound(LoadNow(missing).status));
  EXPECT_EQ(runner_.memory().weight_bytes, 0u);
  EXPECT_TRUE(LoadNow(Assignment(3)).status.ok());
}

// A pair of workers that NCCL could not connect goes by gRPC without reading anything anew.
TEST_F(StepRunnerTest, WeightsOfAnNcclLinkServeAGrpcLinkButNotTheOtherWayRound) {
  StageAssignment by_grpc = Assignment(1);
  by_grpc.stages.push_back({.worker_id = "next", .address = "a", .layers = {1, 2}});
  StageAssignment by_nccl = by_grpc;
  by_nccl.stages[0].link = LinkKind::kNccl;
  LoadNow(by_nccl);
  by_grpc.epoch = 2;
  LoadNow(by_grpc);
  EXPECT_THAT(calls_, ElementsAre("load 0"));
  by_nccl.epoch = 3;
  LoadNow(by_nccl);
  EXPECT_THAT(calls_, ElementsAre("load 0", "freed", "load 0"));
}

TEST_F(StepRunnerTest, WorkIsDoneInOrder) {
  LoadNow(Assignment(1));
  EXPECT_TRUE(runner_.Do(AllocateKv{1, 5}));
  EXPECT_EQ(Next<KvAllocated>().kv_bytes, 50u);
  EXPECT_TRUE(runner_.Do(OpenSequence{.id = 3, .tokens = {1}}));
  EXPECT_TRUE(runner_.Do(ComputeStep{{.epoch = 1, .step_id = 1}, {1.5f, 2.5f}}));
  EXPECT_TRUE(runner_.Do(CloseSequence{3}));
  EXPECT_TRUE(runner_.Do(ComputeStep{{.epoch = 1, .step_id = 2}, {}}));
  const StepComputed first = Next<StepComputed>();
  EXPECT_EQ(first.step_id, 1u);
  EXPECT_THAT(first.hidden, ElementsAre(1.5f, 2.5f));
  EXPECT_EQ(Next<StepComputed>().step_id, 2u);
  EXPECT_THAT(calls_, ElementsAre("load 0", "kv 5", "open 3", "step 1", "close 3", "step 2"));
  const StageMemory memory = runner_.memory();
  EXPECT_EQ(memory.weight_bytes, 1000u);
  EXPECT_EQ(memory.scratch_bytes, 100u);
  EXPECT_EQ(memory.kv_bytes, 50u);
}

TEST_F(StepRunnerTest, ARefusedOpenIsTold) {
  LoadNow(Assignment(6));
  EXPECT_TRUE(runner_.Do(OpenSequence{.id = 3}));
  const OpenFailed failed = Next<OpenFailed>();
  EXPECT_EQ(failed.epoch, 6u);
  EXPECT_THAT(failed.status.message(), HasSubstr("no tokens"));
}

}  // namespace
}  // namespace sauva
