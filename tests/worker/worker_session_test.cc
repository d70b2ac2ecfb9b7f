#include "worker/worker_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/worker/fake_cluster.h"

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<int> FirstWorkers(int count) {
  std::vector<int> workers(static_cast<size_t>(count));
  std::iota(workers.begin(), workers.end(), 0);
  return workers;
}

class PipelineLengthTest : public testing::TestWithParam<int> {};

TEST_P(PipelineLengthTest, TokensDoNotDependOnTheNumberOfStages) {
  FakeCluster cluster(GetParam());
  cluster.StartPipeline(1, FirstWorkers(GetParam()));
  std::vector<std::vector<TokenId>> prompts;
  std::vector<StreamId> streams;
  for (TokenId i = 0; i < 12; ++i) {
    std::vector<TokenId> prompt(static_cast<size_t>(1 + 3 * i), i);
    streams.push_back(cluster.Generate(0, FakeRequest(1, prompt, 20)));
    prompts.push_back(prompt);
  }
  cluster.Run();
  for (size_t i = 0; i < streams.size(); ++i) {
    FakeStream& stream = cluster.stream(streams[i]);
    EXPECT_EQ(stream.tokens, FakeCompletion(prompts[i], 20, 7));
    EXPECT_EQ(stream.end, absl::OkStatus());
    EXPECT_EQ(stream.finish, FinishReason::kLength);
    EXPECT_EQ(stream.numerics_id, "fake-numerics");
  }
  for (int worker = 0; worker < GetParam(); ++worker) {
    EXPECT_EQ(cluster.engine(worker).num_sequences(), 0u) << "worker " << worker;
    EXPECT_GT(cluster.session(worker).Report()->steps_done, 20u) << "worker " << worker;
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, PipelineLengthTest, testing::Values(1, 2, 3, 5));

TEST(WorkerSessionTest, ReportsEachPhaseOfItsStage) {
  FakeCluster cluster(2);
  cluster.StartPipeline(5, {0, 1});
  for (const int worker : {0, 1}) {
    ASSERT_THAT(cluster.reports(worker), SizeIs(3));
    EXPECT_EQ(cluster.reports(worker)[0].phase, StagePhase::kLoading);
    EXPECT_EQ(cluster.reports(worker)[1].phase, StagePhase::kLoaded);
    EXPECT_EQ(cluster.reports(worker)[1].max_kv_blocks, 64u);
    EXPECT_EQ(cluster.reports(worker)[2].phase, StagePhase::kServing);
    EXPECT_EQ(cluster.reports(worker)[2].num_kv_blocks, 64u);
    EXPECT_EQ(cluster.reports(worker)[2].assignment.epoch, 5u);
  }
  EXPECT_EQ(cluster.reports(0)[2].free_kv_blocks, 64u);
}

TEST(WorkerSessionTest, CountsStepsWhoseHiddenStatesCameAfterTheirHeader) {
  FakeCluster cluster(2);
  cluster.StartPipeline(1, {0, 1});
  cluster.Generate(0, FakeRequest(1, {1, 2, 3}, 10));
  cluster.Run();
  EXPECT_EQ(cluster.session(0).counters().hidden_waits, 0u) << "the first stage waits for nobody";
  const WorkerCounters& counters = cluster.session(1).counters();
  EXPECT_GT(counters.hidden_waits, 0u);
  EXPECT_EQ(counters.hidden_waits, cluster.session(1).Report()->steps_done);
}

TEST(WorkerSessionTest, ALostStageEndsTheEpochAndNamesTheSuspect) {
  for (const int victim : {0, 1, 2}) {
    FakeCluster cluster(3);
    cluster.StartPipeline(1, {0, 1, 2});
    const StreamId stream = cluster.Generate(0, FakeRequest(1, {1, 2, 3}, 50));
    cluster.Run([&] { return cluster.stream(stream).tokens.size() >= 5; });
    cluster.Kill(victim);
    cluster.Run();
    if (victim != 0) {
      ASSERT_TRUE(cluster.stream(stream).end.has_value());
      EXPECT_TRUE(absl::IsUnavailable(*cluster.stream(stream).end));
      EXPECT_THAT(cluster.stream(stream).end->message(), HasSubstr("pipeline of epoch 1 broke"));
    }
    bool named = false;
    for (int worker = 0; worker < 3; ++worker) {
      if (worker == victim) continue;
      ASSERT_THAT(cluster.broken(worker), SizeIs(1)) << "each survivor reports once";
      EXPECT_EQ(cluster.broken(worker)[0].epoch, 1u);
      named = named || cluster.broken(worker)[0].suspect_worker_id == FakeCluster::Name(victim);
      EXPECT_EQ(cluster.session(worker).Report(), std::nullopt);
    }
    EXPECT_TRUE(named) << "victim " << victim;
  }
}

TEST(WorkerSessionTest, ASequenceResumedInANewEpochContinuesAsIfNothingHadHappened) {
  FakeCluster cluster(4);
  cluster.StartPipeline(1, {0, 1, 2});
  const StreamId first = cluster.Generate(0, FakeRequest(1, {4, 5}, 30));
  cluster.Run([&] { return cluster.stream(first).tokens.size() >= 7; });
  cluster.Kill(1);
  cluster.Run();
  cluster.StartPipeline(2, {0, 3, 2});
  SequenceRequest again = FakeRequest(2, {4, 5}, 30);
  again.resumed = cluster.stream(first).tokens;
  const StreamId second = cluster.Generate(0, again);
  cluster.Run();
  std::vector<TokenId> all = again.resumed;
  all.insert(all.end(), cluster.stream(second).tokens.begin(), cluster.stream(second).tokens.end());
  EXPECT_EQ(all, FakeCompletion({4, 5}, 30, 7));
  EXPECT_EQ(cluster.stream(second).finish, FinishReason::kLength);
}

TEST(WorkerSessionTest, AFrozenStageIsSuspectedWhenItsStepIsLate) {
  WorkerOptions options;
  options.head.step_timeout = absl::Seconds(3);
  FakeCluster cluster(3, options);
  cluster.StartPipeline(1, {0, 1, 2});
  const StreamId stream = cluster.Generate(0, FakeRequest(1, {1}, 50));
  cluster.Run([&] { return cluster.stream(stream).tokens.size() >= 5; });
  cluster.Freeze(2);
  cluster.Run();
  cluster.Wait(absl::Milliseconds(2900));
  EXPECT_THAT(cluster.broken(0), IsEmpty());
  cluster.Wait(absl::Milliseconds(200));
  ASSERT_THAT(cluster.broken(0), SizeIs(1));
  EXPECT_EQ(cluster.broken(0)[0].suspect_worker_id, FakeCluster::Name(2));
  EXPECT_THAT(cluster.broken(0)[0].reason, HasSubstr("within 3s"));
  EXPECT_TRUE(absl::IsUnavailable(*cluster.stream(stream).end));
}

// Two stages whose link is by NCCL.
FakeCluster JoinedByNccl(uint64_t epoch) {
  FakeCluster cluster(2);
  StageAssignment assignment = cluster.Assignment(epoch, {0, 1});
  assignment.stages[0].link = LinkKind::kNccl;
  cluster.Assign(assignment);
  cluster.Run();
  for (const int worker : {0, 1}) cluster.Send(worker, StartStage{epoch, 64});
  cluster.Run();
  EXPECT_TRUE(cluster.session(0).serving());
  return cluster;
}

TEST(WorkerSessionTest, ALostNcclLinkIsToldOfWithTheProcessWhoseFailureItIs) {
  for (const int reporter : {0, 1}) {
    for (const NcclFault fault : {NcclFault::kOwn, NcclFault::kPeer}) {
      FakeCluster cluster = JoinedByNccl(3);
      const auto way =
          reporter == 0 ? NcclLinkLost::Way::kToNext : NcclLinkLost::Way::kFromPrevious;
      cluster.Send(reporter, NcclLinkLost{way, {2, fault, "of an epoch that is over"}});
      cluster.Send(reporter, NcclLinkLost{way, {3, fault, "NCCL: ncclRecv: test"}});
      cluster.Run();
      ASSERT_THAT(cluster.broken(reporter), SizeIs(1));
      const StageBroken& broken = cluster.broken(reporter)[0];
      const int guilty = fault == NcclFault::kOwn ? reporter : 1 - reporter;
      EXPECT_EQ(broken.suspect_worker_id, FakeCluster::Name(guilty));
      EXPECT_EQ(broken.nccl_link, 0);
      EXPECT_THAT(broken.reason, HasSubstr("NCCL: ncclRecv: test"));
      EXPECT_EQ(broken.reason.find("failed at this end") != std::string::npos,
                fault == NcclFault::kOwn);
      // The other end hears that the epoch was ended, and accuses nobody else.
      ASSERT_THAT(cluster.broken(1 - reporter), SizeIs(1));
      EXPECT_NE(cluster.broken(1 - reporter)[0].suspect_worker_id, FakeCluster::Name(1 - guilty));
      EXPECT_EQ(cluster.session(reporter).counters().stale_messages, 1u);
    }
  }
}

TEST(WorkerSessionTest, AnNcclLinkThatDoesNotJoinInTimeIsNamed) {
  for (const LinkKind link : {LinkKind::kGrpc, LinkKind::kNccl}) {
    WorkerOptions options;
    options.connect_timeout = absl::Seconds(3);
    FakeCluster cluster(2, options);
    StageAssignment assignment = cluster.Assignment(1, {0, 1});
    assignment.stages[0].link = link;
    cluster.Assign(assignment);
    cluster.Run();
    cluster.Freeze(1);
    cluster.Send(0, StartStage{1, 64});
    cluster.Run();
    cluster.Wait(absl::Seconds(4));
    ASSERT_THAT(cluster.broken(0), SizeIs(1));
    EXPECT_EQ(cluster.broken(0)[0].nccl_link.has_value(), link == LinkKind::kNccl);
  }
}

TEST(WorkerSessionTest, ALowerOrEqualEpochIsRefused) {
  FakeCluster cluster(1);
  cluster.StartPipeline(7, {0});
  cluster.Assign(cluster.Assignment(6, {0}));
  StageAssignment other = cluster.Assignment(7, {0});
  other.max_sequences = 3;
  cluster.Assign(other);
  cluster.Run();
  ASSERT_THAT(cluster.reports(0), SizeIs(5));
  for (const size_t refusal : {size_t{3}, size_t{4}}) {
    EXPECT_EQ(cluster.reports(0)[refusal].phase, StagePhase::kFailed);
    EXPECT_THAT(cluster.reports(0)[refusal].error, HasSubstr("not newer than epoch 7"));
  }
  EXPECT_EQ(cluster.session(0).counters().stale_messages, 2u);
  EXPECT_TRUE(cluster.session(0).serving());
}

TEST(WorkerSessionTest, TheSameAssignmentAgainIsAnsweredWithTheState) {
  FakeCluster cluster(1);
  cluster.StartPipeline(7, {0});
  cluster.Assign(cluster.Assignment(7, {0}));
  cluster.Run();
  EXPECT_EQ(cluster.reports(0).back().phase, StagePhase::kServing);
  EXPECT_EQ(cluster.num_loads(0), 1);
}

TEST(WorkerSessionTest, ANewEpochReplacesTheOldOneAndEndsItsStreams) {
  FakeCluster cluster(2);
  cluster.StartPipeline(1, {0, 1});
  const StreamId stream = cluster.Generate(0, FakeRequest(1, {1}, 50));
  cluster.Run([&] { return cluster.stream(stream).tokens.size() >= 2; });
  cluster.StartPipeline(2, {1, 0});
  EXPECT_TRUE(absl::IsUnavailable(*cluster.stream(stream).end));
  const StreamId next = cluster.Generate(1, FakeRequest(2, {1}, 10));
  const StreamId late = cluster.Generate(1, FakeRequest(1, {1}, 10));
  cluster.Run();
  EXPECT_EQ(cluster.stream(next).tokens, FakeCompletion({1}, 10, 7));
  EXPECT_TRUE(absl::IsFailedPrecondition(*cluster.stream(late).end));
}

TEST(WorkerSessionTest, APeerThatHasNotBegunIsAskedAgainWithBackoff) {
  FakeCluster cluster(2);
  cluster.Assign(cluster.Assignment(1, {0, 1}));
  cluster.Run();
  cluster.Send(0, StartStage{1, 64});
  cluster.Run();
  EXPECT_EQ(cluster.num_calls(0), 2);
  cluster.Wait(absl::Seconds(2));
  EXPECT_FALSE(cluster.session(0).serving());
  EXPECT_GE(cluster.num_calls(0), 2 * 5);
  EXPECT_LE(cluster.num_calls(0), 2 * 10) << "20 ms doubled up to 500 ms";
  for (const absl::Status& refusal : cluster.refused(0)) EXPECT_TRUE(absl::IsUnavailable(refusal));
  cluster.Send(1, StartStage{1, 64});
  cluster.Run();
  cluster.Wait(absl::Seconds(1));
  EXPECT_TRUE(cluster.session(0).serving());
  EXPECT_TRUE(cluster.session(1).serving());
}

TEST(WorkerSessionTest, GivesUpOnAPeerThatNeverBegins) {
  FakeCluster cluster(2);
  cluster.Assign(cluster.Assignment(1, {0, 1}));
  cluster.Run();
  cluster.Send(0, StartStage{1, 64});
  cluster.Run();
  cluster.Wait(absl::Seconds(31));
  ASSERT_THAT(cluster.broken(0), SizeIs(1));
  EXPECT_EQ(cluster.broken(0)[0].suspect_worker_id, FakeCluster::Name(1));
  EXPECT_THAT(cluster.broken(0)[0].reason, HasSubstr("has not begun here"));
}

TEST(WorkerSessionTest, RefusesHellosThatDoNotFit) {
  FakeCluster cluster(3);
  cluster.StartPipeline(4, {0, 1, 2});
  const StageHello good{.epoch = 4,
                        .from_stage = 0,
                        .to_stage = 1,
                        .numerics_id = "fake-numerics",
                        .protocol_version = kProtocolVersion};
  const auto answer = [&](PeerKind kind, StageHello hello) {
    for (WorkerEffect& effect :
         cluster.session(1).OnEvent(IncomingHello{99, kind, hello}, absl::UnixEpoch())) {
      if (const auto* end = std::get_if<EndIncoming>(&effect)) return end->status;
    }
    return absl::OkStatus();
  };
  StageHello hello = good;
  hello.epoch = 5;
  EXPECT_TRUE(absl::IsUnavailable(answer(PeerKind::kControl, hello)));
  hello.epoch = 3;
  EXPECT_TRUE(absl::IsFailedPrecondition(answer(PeerKind::kControl, hello)));
  hello = good;
  hello.protocol_version = 77;
  EXPECT_THAT(answer(PeerKind::kControl, hello).message(), HasSubstr("version 77"));
  hello = good;
  hello.numerics_id = "other";
  EXPECT_THAT(answer(PeerKind::kControl, hello).message(), HasSubstr("numerics other"));
  hello = good;
  hello.to_stage = 2;
  EXPECT_THAT(answer(PeerKind::kLink, hello).message(), HasSubstr("this worker is stage 1"));
  hello = good;
  hello.from_stage = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(answer(PeerKind::kLink, hello)));
  EXPECT_THAT(answer(PeerKind::kControl, good).message(), HasSubstr("connected already"));
}

TEST(WorkerSessionTest, ServesOnWithoutACoordinatorAndSaysSoInItsHello) {
  FakeCluster cluster(2);
  for (const int worker : {0, 1})
    cluster.Send(worker, Welcome{.lease_ms = 900, .heartbeat_ms = 300});
  cluster.StartPipeline(1, {0, 1});
  cluster.Wait(absl::Milliseconds(1000));
  ASSERT_THAT(cluster.heartbeats(0), SizeIs(3));
  EXPECT_EQ(cluster.heartbeats(0)[2].stage->phase, StagePhase::kServing);
  for (const int worker : {0, 1}) cluster.Send(worker, CoordinatorLost{});
  cluster.Run();
  cluster.Wait(absl::Seconds(60));
  EXPECT_THAT(cluster.heartbeats(0), SizeIs(3));
  const StreamId stream = cluster.Generate(0, FakeRequest(1, {3}, 9));
  cluster.Run();
  EXPECT_EQ(cluster.stream(stream).tokens, FakeCompletion({3}, 9, 7));
  ASSERT_TRUE(cluster.session(1).Report().has_value());
  EXPECT_EQ(cluster.session(1).Report()->phase, StagePhase::kServing);
  EXPECT_EQ(cluster.session(1).Report()->assignment.epoch, 1u);
}

TEST(WorkerSessionTest, StopStageEndsTheEpochWithoutBlamingAnybody) {
  FakeCluster cluster(2);
  cluster.StartPipeline(3, {0, 1});
  cluster.Send(0, StopStage{2, "older"});
  cluster.Run();
  EXPECT_TRUE(cluster.session(0).serving());
  cluster.Send(0, StopStage{3, "re-placed"});
  cluster.Run();
  EXPECT_EQ(cluster.session(0).Report(), std::nullopt);
  EXPECT_THAT(cluster.broken(0), IsEmpty());
  ASSERT_THAT(cluster.broken(1), SizeIs(1));
  EXPECT_EQ(cluster.broken(1)[0].suspect_worker_id, "");
}

TEST(WorkerSessionTest, AFailedLoadIsReportedAndAnotherEpochMayFollow) {
  WorkerSession session({});
  FakeCluster cluster(1);
  session.OnEvent(cluster.Assignment(1, {0}), absl::UnixEpoch());
  const WorkerEffects effects = session.OnEvent(
      StageLoaded{.epoch = 1, .status = absl::FailedPreconditionError("another digest")},
      absl::UnixEpoch());
  const auto* report = std::get_if<StageReport>(&effects.back());
  ASSERT_NE(report, nullptr);
  EXPECT_EQ(report->phase, StagePhase::kFailed);
  EXPECT_THAT(report->error, HasSubstr("another digest"));
  bool loads = false;
  for (const WorkerEffect& effect :
       session.OnEvent(cluster.Assignment(2, {0}), absl::UnixEpoch())) {
    loads = loads || std::holds_alternative<LoadLayers>(effect);
  }
  EXPECT_TRUE(loads);
}

TEST(WorkerSessionTest, AnAssignmentDuringALoadWaitsForItsEnd) {
  WorkerSession session({});
  FakeCluster cluster(1);
  const auto num_loads = [](const WorkerEffects& effects) {
    int loads = 0;
    for (const WorkerEffect& effect : effects) loads += std::holds_alternative<LoadLayers>(effect);
    return loads;
  };
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(num_loads(session.OnEvent(cluster.Assignment(1, {0}), now)), 1);
  EXPECT_EQ(num_loads(session.OnEvent(cluster.Assignment(2, {0}), now)), 0);
  EXPECT_EQ(num_loads(session.OnEvent(cluster.Assignment(3, {0}), now)), 0);
  const WorkerEffects effects = session.OnEvent(StageLoaded{.epoch = 1}, now);
  ASSERT_EQ(num_loads(effects), 1);
  EXPECT_EQ(std::get<LoadLayers>(effects.back()).assignment.epoch, 3u);
}

TEST(WorkerSessionTest, MoreKvBlocksThanTheBudgetHoldsAreRefused) {
  FakeCluster cluster(1);
  cluster.Assign(cluster.Assignment(1, {0}));
  cluster.Run();
  cluster.Send(0, StartStage{1, 65});
  cluster.Run();
  EXPECT_EQ(cluster.reports(0).back().phase, StagePhase::kFailed);
  EXPECT_THAT(cluster.reports(0).back().error, HasSubstr("65 KV blocks"));
}

TEST(WorkerSessionTest, AShutDownLetsStreamsEndAndTakesNoNewOnes) {
  FakeCluster cluster(2);
  cluster.StartPipeline(1, {0, 1});
  const StreamId running = cluster.Generate(0, FakeRequest(1, {1}, 30));
  cluster.Run([&] { return cluster.stream(running).tokens.size() >= 3; });
  cluster.Send(0, ShutDownWorker{absl::Seconds(30)});
  const StreamId refused = cluster.Generate(0, FakeRequest(1, {1}, 30));
  cluster.Run();
  EXPECT_EQ(cluster.stream(running).tokens, FakeCompletion({1}, 30, 7));
  EXPECT_TRUE(absl::IsUnavailable(*cluster.stream(refused).end));
  EXPECT_TRUE(cluster.drained(0));
  EXPECT_FALSE(cluster.session(0).serving());
}

TEST(WorkerSessionTest, AShutDownEndsStreamsThatOutlastItsTimeout) {
  WorkerOptions options;
  options.head.step_timeout = absl::Seconds(100);
  FakeCluster cluster(2, options);
  cluster.StartPipeline(1, {0, 1});
  const StreamId stream = cluster.Generate(0, FakeRequest(1, {1}, 30));
  cluster.Run([&] { return cluster.stream(stream).tokens.size() >= 3; });
  cluster.Freeze(1);
  cluster.Send(0, ShutDownWorker{absl::Seconds(5)});
  cluster.Run();
  EXPECT_FALSE(cluster.drained(0));
  cluster.Wait(absl::Seconds(6));
  EXPECT_TRUE(cluster.drained(0));
  EXPECT_TRUE(absl::IsUnavailable(*cluster.stream(stream).end));
}

TEST(WorkerSessionTest, AnIdleWorkerShutsDownAtOnce) {
  FakeCluster cluster(1);
  cluster.Send(0, ShutDownWorker{});
  cluster.Run();
  EXPECT_TRUE(cluster.drained(0));
}

TEST(WorkerSessionTest, MessagesOfAnEndedStreamAreDroppedAndCounted) {
  FakeCluster cluster(2);
  cluster.StartPipeline(1, {0, 1});
  cluster.Send(1, IncomingMessage{12345, StepHeader{.epoch = 1, .step_id = 1}});
  cluster.Send(0, OutgoingReply{12345, StepResult{.epoch = 1, .step_id = 1}});
  cluster.Run();
  EXPECT_EQ(cluster.session(0).counters().stale_messages, 1u);
  EXPECT_EQ(cluster.session(1).counters().stale_messages, 1u);
  EXPECT_TRUE(cluster.session(0).serving());
  EXPECT_TRUE(cluster.session(1).serving());
}

}  // namespace
}  // namespace sauva
