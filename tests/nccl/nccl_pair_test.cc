// The calls to NCCL against its stand-in, both ranks in this process.
#include "kernels/nccl_pair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(30);

class NcclPairTest : public testing::Test {
 protected:
  NcclPairTest() {
    setenv("SAUVA_FAKE_NCCL", directory_.path().c_str(), 1);
    auto nccl = OpenNcclLibrary(SAUVA_FAKE_NCCL_LIBRARY);
    EXPECT_TRUE(nccl.ok()) << nccl.status();
    nccl_ = *std::move(nccl);
  }

  std::unique_ptr<NcclPair> MakePair(int64_t bytes) const {
    return std::make_unique<NcclPair>(nccl_, *MakeTransferMemory("cpu", bytes));
  }
  // Asks until what was begun is done or has failed.
  static absl::Status Finish(NcclPair& pair) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      const auto progress = pair.Poll();
      if (!progress.ok()) return progress.status();
      if (*progress == NcclPair::Progress::kDone) return absl::OkStatus();
      std::this_thread::yield();
    }
    return absl::DeadlineExceededError("still in progress");
  }
  void Join(NcclPair& sender, NcclPair& receiver) const {
    const NcclId id = *nccl_.MakeId();
    ASSERT_TRUE(sender.Join(id, 0).ok());
    ASSERT_TRUE(receiver.Join(id, 1).ok());
    ASSERT_TRUE(Finish(sender).ok());
    ASSERT_TRUE(Finish(receiver).ok());
  }

  const TemporaryDirectory directory_;
  NcclLibrary nccl_;
};

std::vector<std::byte> Bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 31 % 251);
  return bytes;
}

TEST_F(NcclPairTest, MovesBytesOfAnySizeUpToTheBuffers) {
  constexpr size_t kBuffer = 1 << 20;
  const auto sender = MakePair(kBuffer);
  const auto receiver = MakePair(kBuffer);
  Join(*sender, *receiver);
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{4097}, kBuffer}) {
    const std::vector<std::byte> sent = Bytes(size);
    ASSERT_TRUE(sender->Send(sent).ok());
    ASSERT_TRUE(receiver->Receive(static_cast<int64_t>(size)).ok());
    ASSERT_TRUE(Finish(*sender).ok());
    ASSERT_TRUE(Finish(*receiver).ok());
    EXPECT_TRUE(std::ranges::equal(receiver->received(), sent)) << size << " bytes";
  }
  EXPECT_THAT(sender->Send(Bytes(kBuffer + 1)).message(), HasSubstr("the buffer holds 1048576"));
  EXPECT_FALSE(receiver->Receive(0).ok());
}

TEST_F(NcclPairTest, AnAbortEndsWhatWaitsForAPeerAndAnotherCommunicatorCanBeJoined) {
  const auto sender = MakePair(64);
  const auto receiver = MakePair(64);
  Join(*sender, *receiver);
  ASSERT_TRUE(receiver->Receive(8).ok());  // the sender sends nothing
  EXPECT_EQ(*receiver->Poll(), NcclPair::Progress::kInProgress);
  receiver->Abort();
  sender->Abort();
  Join(*sender, *receiver);
  ASSERT_TRUE(sender->Send(Bytes(8)).ok());
  ASSERT_TRUE(receiver->Receive(8).ok());
  EXPECT_TRUE(Finish(*receiver).ok());
}

TEST_F(NcclPairTest, AnEndThatGoesIsAnErrorOfTheOther) {
  const auto sender = MakePair(64);
  auto receiver = MakePair(64);
  Join(*sender, *receiver);
  ASSERT_TRUE(sender->Send(Bytes(8)).ok());
  receiver.reset();
  // What fitted into the socket may still count as sent; the next one cannot.
  absl::Status status = Finish(*sender);
  if (status.ok() && sender->Send(Bytes(8)).ok()) status = Finish(*sender);
  EXPECT_THAT(status.message(), HasSubstr("remote process exited"));
}

TEST_F(NcclPairTest, ATransferThatStallsStaysInProgressUntilItIsAborted) {
  const auto sender = MakePair(64);
  const auto receiver = MakePair(64);
  Join(*sender, *receiver);
  std::ofstream(directory_.path() + "/stall").put('\n');
  ASSERT_TRUE(receiver->Receive(8).ok());
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::filesystem::exists(directory_.path() + "/stall")) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    EXPECT_EQ(*receiver->Poll(), NcclPair::Progress::kInProgress);
  }
  ASSERT_TRUE(sender->Send(Bytes(8)).ok());
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(*receiver->Poll(), NcclPair::Progress::kInProgress);
  receiver->Abort();
}

TEST_F(NcclPairTest, ALibraryThatIsNotThereOrNotNcclIsNamed) {
  EXPECT_EQ(nccl_.version, "2.28.9");
  EXPECT_TRUE(nccl_.moves_host_memory);
  const auto absent = OpenNcclLibrary("/nowhere/libnccl.so.2");
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(absent.status().message(), HasSubstr("/nowhere/libnccl.so.2"));
  const auto other = OpenNcclLibrary("libm.so.6");
  EXPECT_THAT(other.status().message(), HasSubstr("libm.so.6 has no function ncclGetVersion"));
}

}  // namespace
}  // namespace sauva
