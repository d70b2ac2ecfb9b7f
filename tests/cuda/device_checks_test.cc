#include "kernels/cuda/device_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/device_lost.h"

namespace sauva::cuda {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

const DeviceFacts kCard = {
    .name = "Tesla P100", .compute_capability = 60, .total_bytes = 16'000, .free_bytes = 9'000};

TEST(DeviceChecksTest, ADriverOfAnOlderMajorVersionIsRefusedNamingBoth) {
  EXPECT_TRUE(CheckDriver(13000, 13000).ok());
  EXPECT_TRUE(CheckDriver(12020, 12080).ok());  // minor versions go together
  EXPECT_TRUE(CheckDriver(13000, 12080).ok());
  const absl::Status old = CheckDriver(12080, 13000);
  EXPECT_TRUE(absl::IsFailedPrecondition(old));
  EXPECT_THAT(old.message(), HasSubstr("CUDA 12.8; this build needs CUDA 13.0"));
  EXPECT_THAT(CheckDriver(0, 13000).message(), HasSubstr("no NVIDIA driver"));
}

TEST(DeviceChecksTest, AnIndexBeyondTheLastGpuIsNotFound) {
  EXPECT_TRUE(CheckIndex(1, 2).ok());
  for (const int index : {-1, 2}) {
    EXPECT_TRUE(absl::IsNotFound(CheckIndex(index, 2)));
    EXPECT_THAT(CheckIndex(index, 2).message(), HasSubstr(std::to_string(index) + " of 2"));
  }
}

TEST(DeviceChecksTest, AGpuWithoutCodeInTheBuildIsNamedWithItsCapability) {
  const absl::Status status = NoCodeFor(3, kCard, "sm_75, sm_90");
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(status.message(), HasSubstr("GPU 3 (Tesla P100) has compute capability 6.0"));
  EXPECT_THAT(status.message(), HasSubstr("code for sm_75, sm_90"));
}

TEST(DeviceChecksTest, MoreMemoryThanIsFreeIsRefusedBeforeAnyIsTaken) {
  EXPECT_TRUE(CheckBudget(0, kCard, 9'000).ok());
  const absl::Status status = CheckBudget(0, kCard, 9'001);
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(status.message(), HasSubstr("9001 bytes on GPU 0 (Tesla P100), of whose 16000 "
                                          "bytes 9000 are free"));
}

TEST(DeviceLostTest, EndsTheProcessWithACodeOfItsOwnNamingTheCall) {
  EXPECT_EQ(kDeviceLostExitCode, 70);
  EXPECT_EXIT(EndAsDeviceLost("cudaStreamSynchronize", "an illegal memory access"),
              ExitedWithCode(kDeviceLostExitCode),
              "the GPU failed in cudaStreamSynchronize: an illegal memory access");
}

}  // namespace
}  // namespace sauva::cuda
