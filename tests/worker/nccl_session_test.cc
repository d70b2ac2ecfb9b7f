// Both ends of an NCCL link with a model of NCCL between them, which does what NCCL does when
// a peer dies: nothing, for ever.
#include "worker/nccl_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>

namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMaxValues = 8;

// Communicators by id, as two ranks meet in them.
class FakeNccl {
 public:
  struct Communicator {
    bool joined[2] = {};
    std::optional<std::vector<float>> sending;
    std::optional<uint64_t> receiving;  // values
    int done[2] = {};                   // transfers that an end has not yet asked after
  };

  Communicator& of(const NcclId& id) { return communicators_[id]; }
  NcclId MakeId() {
    NcclId id{};
    id[0] = static_cast<char>(++made_);
    return id;
  }
  // Moves what both ends wait for.
  static void Move(Communicator& c, std::vector<float>& moved) {
    if (!c.sending || !c.receiving || c.sending->size() != *c.receiving) return;
    moved = *std::move(c.sending);
    c.sending.reset();
    c.receiving.reset();
    ++c.done[0];
    ++c.done[1];
  }

 private:
  std::map<NcclId, Communicator> communicators_;
  int made_ = 0;
};

class Link;

// One end: a session, and what its worker does with its effects.
struct End {
  explicit End(const NcclOptions& options) : session(options) {}
  NcclSession session;
  bool alive = true;
  std::optional<NcclId> communicator;
  std::vector<float> received;
  std::vector<HiddenStates> delivered;
  std::vector<NcclLost> lost;
  int joins = 0;
  int aborts = 0;
};

class Link {
 public:
  explicit Link(const NcclOptions& options = {.poll_interval = absl::Milliseconds(1)})
      : options_(options), ends_{End(options), End(options)} {}

  End& sender() { return ends_[0]; }
  End& receiver() { return ends_[1]; }
  absl::Time now() const { return now_; }

  void Start(uint64_t epoch) {
    const NcclId id = nccl_.MakeId();
    for (int i : {1, 0}) Give(i, NcclStarted{epoch, id, i == 0, kMaxValues});
  }
  void Give(int index, NcclEvent event) {
    if (!ends_[index].alive) return;
    for (NcclEffect& effect : ends_[index].session.OnEvent(std::move(event), now_)) {
      std::visit([&](auto& e) { Do(index, e); }, effect);
    }
  }
  void SendStep(uint64_t epoch, uint64_t step) {
    Give(0, HiddenStates{epoch, step, {static_cast<float>(epoch), static_cast<float>(step)}});
  }
  // A process ends: nobody hears of it, its communicator moves nothing any more.
  void Kill(int index) { ends_[index].alive = false; }
  // The process runs again and knows nothing.
  void Restart(int index) {
    moving_[index] = false;
    std::destroy_at(&ends_[index]);
    std::construct_at(&ends_[index], options_);
  }
  // Lets time pass, both ends seeing every moment they ask for.
  void Run(absl::Duration time) {
    const absl::Time end = now_ + time;
    for (int at_this_moment = 0; at_this_moment < 1000;) {
      absl::Time next = end;
      for (End& e : ends_) {
        if (e.alive) next = std::min(next, std::max(now_, e.session.NextDeadline()));
      }
      if (next >= end) {
        now_ = end;
        return;
      }
      at_this_moment = next > now_ ? 0 : at_this_moment + 1;
      now_ = next;
      for (int i : {0, 1}) {
        if (ends_[i].session.NextDeadline() <= now_) Give(i, NcclTick{});
      }
    }
    ADD_FAILURE() << "an end asks for the same moment over and over";
  }

 private:
  void Do(int index, const JoinNccl& e) {
    EXPECT_EQ(e.rank, index);
    ends_[index].communicator = e.id;
    nccl_.of(e.id).joined[index] = true;
  }
  void Do(int index, const PollNccl& e) {
    End& end = ends_[index];
    FakeNccl::Communicator& c = nccl_.of(*end.communicator);
    NcclPolled polled{.epoch = e.epoch, .progress = NcclPair::Progress::kInProgress};
    if (moving_[index]) {
      FakeNccl::Move(c, ends_[1].received);
      if (c.done[index] > 0) {
        --c.done[index];
        moving_[index] = false;
        polled.progress = NcclPair::Progress::kDone;
        if (index == 1) polled.received = std::exchange(end.received, {});
      }
    } else if (c.joined[0] && c.joined[1] && ends_[1 - index].alive) {
      polled.progress = NcclPair::Progress::kDone;
    }
    Give(index, std::move(polled));
  }
  void Do(int index, BeginNcclSend& e) {
    moving_[index] = true;
    if (ends_[1].alive) nccl_.of(*ends_[index].communicator).sending = std::move(e.states.values);
  }
  void Do(int index, const BeginNcclReceive& e) {
    moving_[index] = true;
    nccl_.of(*ends_[index].communicator).receiving = e.num_values;
  }
  void Do(int index, const AbortNccl&) {
    ++ends_[index].aborts;
    moving_[index] = false;
    nccl_.of(*ends_[index].communicator) = {};
    ends_[index].communicator.reset();
  }
  void Do(int index, const NcclJoined&) { ++ends_[index].joins; }
  void Do(int index, const HiddenAnnounced& e) { Give(1 - index, e); }
  void Do(int index, HiddenStates& e) { ends_[index].delivered.push_back(std::move(e)); }
  void Do(int index, const NcclLost& e) { ends_[index].lost.push_back(e); }

  const NcclOptions options_;
  FakeNccl nccl_;
  End ends_[2];
  bool moving_[2] = {};
  absl::Time now_ = absl::UnixEpoch();
};

void ExpectDelivered(const End& end, uint64_t epoch, uint64_t count) {
  ASSERT_EQ(end.delivered.size(), count);
  for (uint64_t step = 1; step <= count; ++step) {
    const HiddenStates& states = end.delivered[step - 1];
    EXPECT_EQ(states.epoch, epoch);
    EXPECT_EQ(states.step_id, step);
    EXPECT_EQ(states.values,
              (std::vector<float>{static_cast<float>(epoch), static_cast<float>(step)}));
  }
}

TEST(NcclSessionTest, StepsArriveInOrderOnceBothEndsHaveJoined) {
  Link link;
  link.Start(7);
  for (uint64_t step = 1; step <= 5; ++step) link.SendStep(7, step);  // before they are joined
  EXPECT_EQ(link.sender().session.num_waiting(), 5u);
  link.Run(absl::Milliseconds(100));
  ExpectDelivered(link.receiver(), 7, 5);
  EXPECT_TRUE(link.sender().lost.empty());
  EXPECT_EQ(link.sender().joins, 1);
  EXPECT_EQ(link.receiver().joins, 1);
  EXPECT_EQ(link.sender().session.NextDeadline(), absl::InfiniteFuture());  // idle: no polls
}

TEST(NcclSessionTest, APeerThatNeverJoinsIsGivenUpAfterTheTimeout) {
  Link link({.join_timeout = absl::Seconds(3)});
  link.Kill(1);
  link.Start(1);
  link.Run(absl::Milliseconds(2999));
  EXPECT_TRUE(link.sender().lost.empty());
  link.Run(absl::Milliseconds(2));
  ASSERT_EQ(link.sender().lost.size(), 1u);
  EXPECT_THAT(link.sender().lost[0].reason, HasSubstr("did not join within 3s"));
  EXPECT_EQ(link.sender().aborts, 1);
}

TEST(NcclSessionTest, ADeathInMidTransferAbortsAtTheDeadlineAndTheNextEpochJoinsAgain) {
  Link link({.step_timeout = absl::Seconds(2)});
  link.Start(1);
  link.Run(absl::Milliseconds(10));
  link.Kill(1);
  link.SendStep(1, 1);
  link.Run(absl::Milliseconds(1999));
  EXPECT_TRUE(link.sender().lost.empty());
  link.Run(absl::Milliseconds(2));
  ASSERT_EQ(link.sender().lost.size(), 1u);
  EXPECT_EQ(link.sender().lost[0].epoch, 1u);
  EXPECT_THAT(link.sender().lost[0].reason, HasSubstr("step 1 did not pass within 2s"));
  EXPECT_EQ(link.sender().aborts, 1);

  link.Restart(1);
  link.Start(2);
  link.SendStep(2, 1);
  link.Run(absl::Milliseconds(10));
  ExpectDelivered(link.receiver(), 2, 1);
}

TEST(NcclSessionTest, TheEndOfAnEpochAbortsAnIdleCommunicatorToo) {
  Link link;
  link.Start(1);
  link.Run(absl::Milliseconds(10));
  link.Give(0, NcclStopped{});
  EXPECT_EQ(link.sender().aborts, 1);
  EXPECT_FALSE(link.sender().session.joined());
  EXPECT_TRUE(link.sender().lost.empty());
  link.Give(0, NcclStopped{});
  EXPECT_EQ(link.sender().aborts, 1);
}

// What a call says of the other end is the peer's failure, all else is this end's own.
TEST(NcclSessionTest, WhatNcclRefusesIsTheReasonAndSaysWhoseItIs) {
  const auto lost = [](const absl::Status& status) {
    Link link;
    link.Start(1);
    link.Give(0, NcclPolled{1, status, {}});
    EXPECT_EQ(link.sender().lost.size(), 1u);
    EXPECT_EQ(link.sender().aborts, 1);
    return link.sender().lost.at(0);
  };
  const NcclLost of_peer = lost(absl::UnavailableError("remote process exited"));
  EXPECT_THAT(of_peer.reason, HasSubstr("remote process exited"));
  EXPECT_EQ(of_peer.fault, NcclFault::kPeer);
  const NcclLost own = lost(absl::InternalError("ncclCommInitRankConfig: unhandled system error"));
  EXPECT_THAT(own.reason, HasSubstr("unhandled system error"));
  EXPECT_EQ(own.fault, NcclFault::kOwn);
}

// The other end notices an abort; this end's words are on their way before.
TEST(NcclSessionTest, ALossIsToldBeforeTheCommunicatorIsAborted) {
  NcclSession session({});
  session.OnEvent(NcclStarted{.epoch = 1, .sends = true, .max_values = 8}, absl::UnixEpoch());
  const NcclEffects effects =
      session.OnEvent(NcclPolled{1, absl::InternalError("failed"), {}}, absl::UnixEpoch());
  ASSERT_EQ(effects.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<NcclLost>(effects[0]));
  EXPECT_TRUE(std::holds_alternative<AbortNccl>(effects[1]));
}

TEST(NcclSessionTest, MessagesOfAnotherEpochAreDroppedAndCounted) {
  Link link;
  link.Start(5);
  link.Run(absl::Milliseconds(10));
  const uint64_t before = link.receiver().session.num_stale();
  link.Give(1, HiddenAnnounced{4, 1, 2});
  link.Give(1, NcclPolled{4, NcclPair::Progress::kDone, {}});
  link.Give(1, NcclStarted{5, {}, false, kMaxValues});
  EXPECT_EQ(link.receiver().session.num_stale(), before + 3);
  EXPECT_TRUE(link.receiver().lost.empty());
  EXPECT_TRUE(link.receiver().session.joined());
}

// What a peer or its own worker must not say ends the epoch with a reason.
TEST(NcclSessionTest, NonsenseEndsTheEpochNamingIt) {
  const auto reason = [](int end, NcclEvent event) {
    Link link({.max_waiting_steps = 2});
    link.Start(1);
    link.Run(absl::Milliseconds(10));
    link.Give(end, std::move(event));
    End& e = end == 0 ? link.sender() : link.receiver();
    return e.lost.size() == 1 ? e.lost[0].reason : "none";
  };
  EXPECT_THAT(reason(1, HiddenAnnounced{1, 2, 1}), HasSubstr("step 2 was announced after step 0"));
  EXPECT_THAT(reason(1, HiddenAnnounced{1, 1, 9}), HasSubstr("9 values; allowed are 1 to 8"));
  EXPECT_THAT(reason(1, HiddenAnnounced{1, 1, 0}), HasSubstr("0 values"));
  EXPECT_THAT(reason(0, HiddenAnnounced{1, 1, 1}), HasSubstr("was announced"));
  EXPECT_THAT(reason(0, HiddenStates{1, 3, {1}}), HasSubstr("step 3 was to be sent"));
  EXPECT_THAT(reason(0, HiddenStates{1, 1, {}}), HasSubstr("0 values"));
  EXPECT_THAT(reason(1, HiddenStates{1, 1, {1}}), HasSubstr("step 1 was to be sent"));
}

TEST(NcclSessionTest, WaitingStepsAreBounded) {
  Link link({.max_waiting_steps = 2});
  link.Start(1);
  for (uint64_t step = 1; step <= 3; ++step) link.SendStep(1, step);
  ASSERT_EQ(link.sender().lost.size(), 1u);
  EXPECT_THAT(link.sender().lost[0].reason, HasSubstr("2 steps wait"));
}

// Deaths at random moments: what is delivered is always a beginning of what was sent, the
// survivor gives up within the deadline, and the next epoch works.
TEST(NcclSessionTest, SurvivesDeathsAtAnyMoment) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    std::mt19937 random(seed);
    Link link({.join_timeout = absl::Seconds(2),
               .step_timeout = absl::Seconds(1),
               .poll_interval = absl::Milliseconds(1)});
    for (uint64_t epoch = 1; epoch <= 4; ++epoch) {
      link.receiver().delivered.clear();
      link.Start(epoch);
      const uint64_t steps = random() % 6;
      const uint64_t death = random() % 8;  // beyond steps: nobody dies
      const int victim = static_cast<int>(random() % 2);
      for (uint64_t step = 1; step <= steps; ++step) {
        if (step == death) link.Kill(victim);
        link.SendStep(epoch, step);
        link.Run(absl::Microseconds(random() % 3000));
      }
      link.Run(absl::Seconds(3));
      End& survivor = victim == 0 ? link.receiver() : link.sender();
      if (death == 0 || death > steps) {
        ExpectDelivered(link.receiver(), epoch, steps);
      } else {
        ExpectDelivered(link.receiver(), epoch, link.receiver().delivered.size());
        EXPECT_LT(link.receiver().delivered.size(), steps + 1);
        if (victim == 1) {
          EXPECT_FALSE(survivor.lost.empty()) << "a sender whose peer died";
        }
        EXPECT_LE(survivor.session.num_waiting(), 0u);
        link.Restart(victim);
      }
      if (HasFailure()) FAIL() << "seed " << seed << ", epoch " << epoch;
      survivor.lost.clear();
    }
  }
}

}  // namespace
}  // namespace sauva
