#include "cli/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

namespace sauva {
namespace {

using ::testing::HasSubstr;

// A service written in shell. $1 and $2 are --listen and its value.
ServiceCommand Shell(const std::string& name, const std::string& script) {
  return {.command = {"worker", name, "/bin/sh", {"-c", script, name}},
          .listen = "127.0.0.1:0",
          .metrics = "127.0.0.1:0"};
}

// Announces an address made of its process id, or the one it was given, and lives until it is
// told to end.
constexpr char kService[] = R"(
case $2 in *:0) address=h:$$ ;; *) address=$2 ;; esac
echo '{"event":"listening","role":"worker","address":"'$address'","metrics":"m:'$$'"}'
while :; do sleep 1000 & wait $!; done)";

class SupervisorTest : public testing::Test {
 protected:
  Supervisor Make(bool restart) {
    return Supervisor({.restart = restart,
                       .log_directory = "",
                       .on_event = [this](const ChildEvent& event) { events_.push_back(event); }});
  }
  static std::function<bool()> Within(absl::Duration limit, std::function<bool()> done) {
    const absl::Time deadline = absl::Now() + limit;
    return [=] {
      EXPECT_LT(absl::Now(), deadline);
      return done() || absl::Now() >= deadline;
    };
  }

  std::vector<ChildEvent> events_;
};

TEST_F(SupervisorTest, HearsWhereAServiceListens) {
  Supervisor supervisor = Make(true);
  ASSERT_TRUE(supervisor.Start(Shell("worker-1", kService)).ok());
  ASSERT_TRUE(supervisor.AwaitListening("worker", absl::Seconds(10)).ok());
  const auto running = supervisor.running();
  ASSERT_EQ(running.size(), 1u);
  EXPECT_EQ(running[0].listening.address, "h:" + std::to_string(running[0].pid));
  EXPECT_EQ(running[0].listening.metrics, "m:" + std::to_string(running[0].pid));
}

TEST_F(SupervisorTest, TellsTheLastLogLinesOfAServiceThatDiesAtItsStart) {
  Supervisor supervisor = Make(true);
  ASSERT_TRUE(supervisor.Start(Shell("worker-1", "echo the port is taken >&2; exit 1")).ok());
  const absl::Status status = supervisor.AwaitListening("worker", absl::Seconds(10));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("worker-1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("exit code 1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the port is taken"));
}

TEST_F(SupervisorTest, GivesUpOnAServiceThatNeverListens) {
  Supervisor supervisor = Make(true);
  ASSERT_TRUE(supervisor.Start(Shell("worker-1", "exec sleep 1000")).ok());
  EXPECT_EQ(supervisor.AwaitListening("worker", absl::Milliseconds(100)).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SupervisorTest, StartsAKilledServiceAgainAtItsOldAddress) {
  Supervisor supervisor = Make(true);
  ServiceCommand service = Shell("worker-1", kService);
  service.restart_address = RestartAddress::kSame;
  ASSERT_TRUE(supervisor.Start(service).ok());
  ASSERT_TRUE(supervisor.AwaitListening("worker", absl::Seconds(10)).ok());
  supervisor.EnterService();
  const pid_t first = supervisor.running().at(0).pid;
  const std::string address = supervisor.running().at(0).listening.address;
  kill(first, SIGKILL);
  ASSERT_TRUE(
      supervisor.RunUntil(Within(absl::Seconds(10), [&] { return events_.size() == 2; })).ok());
  EXPECT_EQ(events_[0].kind, ChildEvent::Kind::kDied);
  EXPECT_EQ(events_[0].pid, first);
  EXPECT_THAT(events_[0].detail, HasSubstr("signal 9"));
  EXPECT_EQ(events_[1].kind, ChildEvent::Kind::kRestarted);
  EXPECT_NE(events_[1].pid, first);
  EXPECT_EQ(events_[1].listening.address, address);
}

TEST_F(SupervisorTest, LeavesTheDeadAloneWhenToldNotToRestart) {
  Supervisor supervisor = Make(false);
  ASSERT_TRUE(supervisor.Start(Shell("worker-1", kService)).ok());
  ASSERT_TRUE(supervisor.AwaitListening("worker", absl::Seconds(10)).ok());
  supervisor.EnterService();
  kill(supervisor.running().at(0).pid, SIGKILL);
  EXPECT_EQ(supervisor.RunUntil(Within(absl::Seconds(10), [] { return false; })).code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(events_.size(), 1u);
}

TEST_F(SupervisorTest, AnInterruptEndsServingAndStopEndsTheChildren) {
  Supervisor supervisor = Make(true);
  ASSERT_TRUE(supervisor.Start(Shell("worker-1", kService)).ok());
  ASSERT_TRUE(supervisor.AwaitListening("worker", absl::Seconds(10)).ok());
  supervisor.EnterService();
  raise(SIGTERM);
  EXPECT_EQ(supervisor.RunUntil([] { return false; }).code(), absl::StatusCode::kCancelled);
  supervisor.Stop("worker", absl::Seconds(10));
  EXPECT_TRUE(supervisor.running().empty());
  EXPECT_TRUE(events_.empty()) << "an ordered end is no death";
}

TEST_F(SupervisorTest, KillsAServiceThatDoesNotEndInTime) {
  Supervisor supervisor = Make(true);
  const std::string stubborn = std::string("trap '' TERM\n") + kService;
  ASSERT_TRUE(supervisor.Start(Shell("worker-1", stubborn)).ok());
  ASSERT_TRUE(supervisor.AwaitListening("worker", absl::Seconds(10)).ok());
  supervisor.Stop("worker", absl::Milliseconds(50));
  EXPECT_TRUE(supervisor.running().empty());
}

TEST_F(SupervisorTest, RefusesABinaryThatIsNotThere) {
  Supervisor supervisor = Make(true);
  ServiceCommand service = Shell("worker-1", "");
  service.command.binary = "/nowhere/sauva-worker";
  const auto started = supervisor.Start(service);
  EXPECT_EQ(started.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("/nowhere/sauva-worker"));
}

TEST(ChildProcessTest, ChildrenDieWithTheirParent) {
  // A second process plays the parent: it starts a child, tells its pid and is killed.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    auto child = ChildProcess::Start({"worker", "w", "/bin/sleep", {"1000"}});
    const pid_t pid = child.ok() ? child->pid() : -1;
    (void)!write(ends[1], &pid, sizeof pid);
    pause();
  }
  pid_t child = -1;
  ASSERT_EQ(read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ASSERT_GT(child, 0);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  // Whoever inherits the orphan may not reap it, so a zombie counts as dead.
  const auto is_dead = [&] {
    std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
    std::string pid, name, state;
    return !(stat >> pid >> name >> state) || state == "Z" || state == "X";
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!is_dead() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_TRUE(is_dead());
  close(ends[0]);
  close(ends[1]);
}

TEST(AnnouncementTest, OtherLinesAreNotAnnouncements) {
  EXPECT_EQ(ParseAnnouncement(""), std::nullopt);
  EXPECT_EQ(ParseAnnouncement("listening 127.0.0.1:1"), std::nullopt);
  EXPECT_EQ(ParseAnnouncement(R"({"event":"other","address":"a:1"})"), std::nullopt);
  EXPECT_EQ(ParseAnnouncement(R"({"event":"listening","address":7})"), std::nullopt);
  EXPECT_EQ(ParseAnnouncement("[1,2]"), std::nullopt);
  EXPECT_EQ(ParseAnnouncement(
                R"({"event":"listening","role":"gateway","address":"a:1","metrics":"b:2"})"),
            (Announcement{"gateway", "a:1", "b:2"}));
}

}  // namespace
}  // namespace sauva
