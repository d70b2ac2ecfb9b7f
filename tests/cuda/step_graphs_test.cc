// When a part of a step is launched op by op, recorded and replayed, and what is written for
// rows that pad a step to its bucket.
#include "kernels/cuda/step_graphs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/buckets.h"
#include "kernels/cuda/cuda_step.h"
#include "tests/cuda/emulator/emulated_device.h"

namespace sauva::cuda {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BucketsTest, ASizeGoesToTheNextPowerOfTwoOrTheLargest) {
  EXPECT_EQ(BucketOf(0, 48), 0);
  std::vector<int> buckets;
  for (const int size : {1, 2, 3, 4, 5, 8, 9, 17, 32, 33, 47, 48}) {
    buckets.push_back(BucketOf(size, 48));
  }
  EXPECT_THAT(buckets, ElementsAre(1, 2, 4, 4, 8, 8, 16, 32, 32, 48, 48, 48));
  for (int most = 1; most < 70; ++most) {
    int last = -1;
    for (int size = 1; size <= most; ++size) {
      const int bucket = BucketOf(size, most);
      ASSERT_GE(bucket, size);
      ASSERT_LE(bucket, most);
      const int index = BucketIndex(size, most);
      ASSERT_EQ(index, BucketIndex(bucket, most));
      ASSERT_TRUE(index == last || index == last + 1);
      last = index;
    }
    EXPECT_EQ(last + 1, NumBuckets(most));
  }
}

// Says what is asked of it.
class FakeDevice : public Device {
 public:
  using Device::Device;
  std::vector<std::string> calls;
  bool refuses = false;
  int live = 0;  // recordings

  const DeviceFacts& facts() const override { return facts_; }
  void* stream() override { return nullptr; }
  absl::StatusOr<void*> AllocatePinned(int64_t) override { return absl::InternalError("none"); }
  void FreePinned(void*) override {}
  void CopyToDevice(const RowCopy&) override {}
  void CopyToHost(const RowCopy&) override {}
  absl::Status BeginRecording() override {
    calls.push_back("begin");
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecording() override {
    calls.push_back("end");
    if (refuses) return absl::InternalError("no");
    return std::make_unique<FakeRecording>(*this);
  }
  void Replay(Recording&) override { calls.push_back("replay"); }

 private:
  struct FakeRecording : Recording {
    explicit FakeRecording(FakeDevice& device_in) : device(device_in) { ++device.live; }
    ~FakeRecording() override { --device.live; }
    FakeDevice& device;
  };
  void Enter() override {}
  void WaitForStream() override {}
  absl::StatusOr<void*> AllocateOnDevice(int64_t) override { return absl::InternalError("none"); }
  void FreeOnDevice(void*) override {}

  const DeviceFacts facts_;
};

class StepGraphsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kBudget = int64_t{64} << 20;

  void Run(StepGraphs::Key key) {
    graphs_.Run(key, [this] { device_.calls.push_back("ops"); });
  }
  void Run(int rows) { Run({.rows = rows}); }
  std::vector<std::string> Calls() { return std::exchange(device_.calls, {}); }

  FakeDevice device_{kBudget};
  StepGraphs graphs_;
};

TEST_F(StepGraphsTest, APartIsLaunchedThenRecordedThenReplayed) {
  ASSERT_TRUE(
      graphs_.Reserve(device_, {.max_decode_rows = 8, .max_sampled_rows = 8, .max_spans = 4}).ok());
  Run(4);
  EXPECT_THAT(Calls(), ElementsAre("ops"));
  Run(4);
  EXPECT_THAT(Calls(), ElementsAre("begin", "ops", "end", "replay"));
  for (int i = 0; i < 2; ++i) {
    Run(4);
    EXPECT_THAT(Calls(), ElementsAre("replay"));
  }
}

TEST_F(StepGraphsTest, PartsRowsAndSpansHaveRecordingsOfTheirOwn) {
  ASSERT_TRUE(
      graphs_.Reserve(device_, {.max_decode_rows = 6, .max_sampled_rows = 8, .max_spans = 3}).ok());
  std::vector<StepGraphs::Key> keys;
  for (const int rows : {1, 2, 4, 6}) {
    for (const int spans : {1, 2, 3}) keys.push_back({.rows = rows, .spans = spans});
  }
  for (const int rows : {1, 2, 4, 8}) keys.push_back({.part = StepPart::kHead, .rows = rows});
  for (const char* expected : {"ops", "begin", "replay"}) {
    for (const StepGraphs::Key& key : keys) {
      Run(key);
      EXPECT_EQ(Calls().front(), expected);
    }
  }
  EXPECT_EQ(graphs_.num_recordings(), static_cast<int>(keys.size()));
  EXPECT_EQ(device_.live, graphs_.num_recordings());
  EXPECT_EQ(device_.used_bytes(), graphs_.num_recordings() * StepGraphs::kRecordingBytes);
}

TEST_F(StepGraphsTest, RecordingsAreBoundedAndCountedBeforeTheyAreMade) {
  ASSERT_TRUE(
      graphs_.Reserve(device_, {.max_decode_rows = 256, .max_sampled_rows = 256, .max_spans = 256})
          .ok());
  EXPECT_EQ(device_.used_bytes(), StepGraphs::kMostRecordings * StepGraphs::kRecordingBytes);
  for (int spans = 1; spans <= 256; spans *= 2) {
    for (int rows = 1; rows <= 256; rows *= 2) {
      for (int i = 0; i < 2; ++i) Run({.rows = rows, .spans = spans});
    }
  }
  EXPECT_EQ(graphs_.num_recordings(), StepGraphs::kMostRecordings);
  Calls();
  Run({.rows = 256, .spans = 256});
  EXPECT_THAT(Calls(), ElementsAre("ops"));
  Run({.rows = 1, .spans = 1});
  EXPECT_THAT(Calls(), ElementsAre("replay"));
}

TEST_F(StepGraphsTest, MemoryThatIsNotThereIsRefused) {
  FakeDevice small(StepGraphs::kRecordingBytes);
  const absl::Status status =
      graphs_.Reserve(small, {.max_decode_rows = 8, .max_sampled_rows = 8, .max_spans = 1});
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("8388608 bytes of device memory asked for; 0 of a"));
  EXPECT_FALSE(graphs_.on());
}

TEST_F(StepGraphsTest, ADeviceThatRefusesGetsEveryOpAndIsNotAskedAgain) {
  ASSERT_TRUE(
      graphs_.Reserve(device_, {.max_decode_rows = 8, .max_sampled_rows = 8, .max_spans = 1}).ok());
  Run(2);
  Run(2);
  Run(1);
  Calls();
  device_.refuses = true;
  Run(1);
  EXPECT_THAT(Calls(), ElementsAre("begin", "ops", "end", "ops"));
  EXPECT_FALSE(graphs_.on());
  EXPECT_EQ(device_.live, 0);
  Run(1);
  Run(2);
  EXPECT_THAT(Calls(), ElementsAre("ops", "ops"));
}

TEST_F(StepGraphsTest, WhatIsForgottenIsRecordedAnew) {
  ASSERT_TRUE(
      graphs_.Reserve(device_, {.max_decode_rows = 8, .max_sampled_rows = 8, .max_spans = 1}).ok());
  for (int i = 0; i < 3; ++i) Run(8);
  graphs_.Forget();
  EXPECT_EQ(device_.live, 0);
  Calls();
  Run(8);
  EXPECT_THAT(Calls(), ElementsAre("begin", "ops", "end", "replay"));
}

TEST_F(StepGraphsTest, WithoutAReserveEveryOpIsLaunched) {
  for (int i = 0; i < 3; ++i) Run(1);
  EXPECT_THAT(Calls(), ElementsAre("ops", "ops", "ops"));
}

// Uploads a step of one token for each position, every row sampled.
void Upload(CudaStep& step, const std::vector<int32_t>& positions) {
  const auto count = static_cast<int32_t>(positions.size());
  std::vector<int32_t> rows, tokens(positions.size(), 77), first_tokens;
  for (int32_t i = 0; i < count; ++i) rows.push_back(i);
  for (int32_t i = 0; i <= count; ++i) first_tokens.push_back(i);
  step.Upload({.token_ids = tokens,
               .positions = positions,
               .sequence_rows = rows,
               .first_tokens = first_tokens,
               .sampled_rows = rows});
}

TEST(CudaStepTest, RowsThatPadADecodeStepBelongToNoSequence) {
  const std::unique_ptr<Device> device = MakeEmulatedDevice(1 << 20);
  CudaStep step;
  ASSERT_TRUE(step.Reserve(*device, {.max_tokens = 64,
                                     .max_sequences = 8,
                                     .max_blocks_per_sequence = 160,
                                     .num_kv_groups = 0})
                  .ok());
  const StepView& view = step.view();
  const auto of = [](const int32_t* list, size_t count) {
    return std::vector<int32_t>(list, list + count);
  };
  Upload(step, {9, 9, 9, 9, 9, 9, 9, 9});
  EXPECT_EQ(step.num_spans(), 1);
  Upload(step, {5, 6, 1100});
  EXPECT_TRUE(step.decode_only());
  EXPECT_EQ(step.num_spans(), 4);  // three are reached
  EXPECT_THAT(of(view.token_ids, 5), ElementsAre(77, 77, 77, 0, 77));
  EXPECT_THAT(of(view.positions, 5), ElementsAre(5, 6, 1100, 0, 9));
  EXPECT_THAT(of(view.sequence_rows, 5), ElementsAre(0, 1, 2, -1, 4));
  EXPECT_THAT(of(view.sampled_rows, 5), ElementsAre(0, 1, 2, 0, 4));
  EXPECT_EQ(device->num_waits(), 0);
  Upload(step, {5});  // into what two steps before may still be read from
  EXPECT_EQ(device->num_waits(), 1);
  device->Wait();
  Upload(step, {5});
  EXPECT_EQ(device->num_waits(), 2) << "nobody reads any more";
}

}  // namespace
}  // namespace sauva::cuda
