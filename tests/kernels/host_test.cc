// What the kernels ask of the host: cores, memory, instruction sets, devices, rates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "kernels/cpu_warnings.h"
#include "kernels/factory.h"
#include "kernels/host_memory.h"
#include "kernels/last_level_cache.h"
#include "kernels/machine_rates.h"
#include "kernels/rate_probe.h"
#include "kernels/usable_cores.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using ::testing::HasSubstr;

class CgroupTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  std::optional<double> Cores() {
    return CgroupCores((root_ / "proc").string(), (root_ / "fs").string());
  }
  const TemporaryDirectory directory_;
  const std::filesystem::path root_ = directory_.path();
};

TEST_F(CgroupTest, Version2TakesTheLeastOfItsGroupAndThoseAbove) {
  Write("proc", "0::/pods/one");
  EXPECT_EQ(Cores(), std::nullopt);
  Write("fs/pods/one/cpu.max", "max 100000");
  EXPECT_EQ(Cores(), std::nullopt);
  Write("fs/pods/cpu.max", "250000 100000");
  EXPECT_EQ(Cores(), 2.5);
  Write("fs/pods/one/cpu.max", "50000 100000");
  EXPECT_EQ(Cores(), 0.5);
}

TEST_F(CgroupTest, Version2InAContainerReadsTheRoot) {
  Write("proc", "0::/");
  Write("fs/cpu.max", "150000 100000");
  EXPECT_EQ(Cores(), 1.5);
}

TEST_F(CgroupTest, Version1ReadsTheGroupOfTheCpuController) {
  Write("proc", "5:memory:/other\n4:cpu,cpuacct:/docker/abc\n0::/");
  Write("fs/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1");
  Write("fs/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000");
  EXPECT_EQ(Cores(), std::nullopt);
  Write("fs/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "300000");
  EXPECT_EQ(Cores(), 3.0);
}

TEST_F(CgroupTest, NonsenseIsNoLimit) {
  Write("proc", "garbage\n0::/x");
  Write("fs/x/cpu.max", "many few");
  EXPECT_EQ(Cores(), std::nullopt);
}

TEST(UsableCoresTest, CountsTheAffinityOfTheProcess) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &before)) {
      CPU_SET(i, &one);
      break;
    }
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(UsableCores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(CpuWarningsTest, TellOfMissingInstructionsAndOfMoreThreadsThanCores) {
  using ::testing::ElementsAre;
  using ::testing::IsEmpty;
  EXPECT_THAT(CpuWarnings("cpu", 0, InstructionSet::kAvx512, 2), IsEmpty());
  EXPECT_THAT(CpuWarnings("cpu", 2, InstructionSet::kAvx2, 2), IsEmpty());
  EXPECT_THAT(CpuWarnings("cpu", 0, InstructionSet::kScalar, 2), ElementsAre(HasSubstr("AVX2")));
  EXPECT_THAT(CpuWarnings("cpu:scalar", 3, InstructionSet::kScalar, 2),
              ElementsAre(HasSubstr("3 threads on 2 cores")))
      << "who asks for the scalar kernels knows";
  EXPECT_THAT(CpuWarnings("cuda:0", 99, InstructionSet::kScalar, 1), IsEmpty());
}

TEST(HostMemoryTest, IsZeroAndAligned) {
  constexpr int64_t kHugePage = 2 << 20;
  for (const int64_t bytes : {int64_t{1}, int64_t{63}, int64_t{4096}, kHugePage - 1, kHugePage,
                              kHugePage + 1, 2 * kHugePage + 5000}) {
    absl::StatusOr<HostMemory> memory = HostMemory::Allocate(bytes);
    ASSERT_TRUE(memory.ok());
    EXPECT_EQ(memory->size_bytes(), bytes);
    const int64_t alignment = bytes >= kHugePage ? kHugePage : 64;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % alignment, 0u) << bytes;
    for (const std::byte b : memory->as<std::byte>()) ASSERT_EQ(b, std::byte{0});
  }
}

TEST(HostMemoryTest, RefusesWhatTheSystemDoesNotHave) {
  const auto memory = HostMemory::Allocate(int64_t{1} << 60);
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()), HasSubstr("1152921504606846976"));
  EXPECT_EQ(HostMemory::Allocate(-1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FactoryTest, MakesEveryDeviceByName) {
  EXPECT_EQ((*MakeBackend("reference", 0))->backend_class(), "reference");
  EXPECT_EQ((*MakeBackend("cpu", 2))->backend_class(), "cpu");
  for (const InstructionSet isa : SupportedInstructionSets()) {
    const auto backend = MakeBackend(std::string("cpu:") + Name(isa), 1);
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ((*backend)->backend_class(), "cpu");
  }
}

TEST(FactoryTest, RefusesUnknownDevicesNamingTheChoices) {
  const auto backend = MakeBackend("gpu", 1);
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("cpu:avx512"));
  EXPECT_EQ(MakeBackend("cpu", -1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FactoryTest, CudaWithoutCudaSaysWhichOptionIsMissing) {
  const auto backend = MakeBackend("cuda:0", 1);
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("SAUVA_CUDA"));
}

TEST(BackendTest, RefusesImpossibleShapesNamingThem) {
  const auto cpu = *MakeCpuBackend({.threads = 1});
  for (Backend* backend : {cpu.get()}) {
    WeightSource source{.name = "layers.3.q", .rows = 4, .columns = 4};
    const auto weight = backend->PrepareWeight(source, WeightFormat::kNative);
    EXPECT_EQ(weight.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(weight.status().message()), HasSubstr("layers.3.q: 4 x 4 f32"));
    source.dtype = DType::kI32;
    EXPECT_THAT(
        std::string(backend->PrepareWeight(source, WeightFormat::kNative).status().message()),
        HasSubstr("i32"));
    EXPECT_EQ(backend->AllocateKv({.num_blocks = 0}).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(
        backend->AllocateKv({.num_blocks = 1 << 30, .num_kv_heads = 1 << 10, .head_dim = 1 << 10})
            .status()
            .code(),
        absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(backend->MakeRopeTable({}).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(MachineRatesTest, AreMeasuredInTheLittleMemoryThatMayBeTaken) {
  EXPECT_GT(MeasureMachineRates(1, 0).read_bytes_per_second, 1e7);
}

TEST(RateProbeTest, MeasuresEachInstructionSet) {
  for (const InstructionSet isa : SupportedInstructionSets()) {
    const auto probe = RateProbe::Create({.threads = 2, .read_bytes = 3 << 20, .isa = isa});
    ASSERT_TRUE(probe.ok()) << probe.status();
    EXPECT_GT((*probe)->ReadBytesPerSecond(), 1e7) << Name(isa);
    EXPECT_GT((*probe)->FloatOperationsPerSecond(), 1e7) << Name(isa);
    EXPECT_GT((*probe)->Int8OperationsPerSecond(), 1e7) << Name(isa);
  }
}

TEST(LastLevelCacheTest, IsTheLargestThatTheSystemTells) {
  const TemporaryDirectory folder;
  const std::string& directory = folder.path();
  EXPECT_EQ(LastLevelCacheBytes(directory), 0);
  EXPECT_EQ(LastLevelCacheBytes(directory + "/absent"), 0);
  const std::pair<const char*, const char*> sizes[] = {
      {"index0", "48K\n"}, {"index1", "3M\n"}, {"index2", "2048K\n"}, {"index3", "many\n"}};
  for (const auto& [index, size] : sizes) {
    std::filesystem::create_directory(directory + "/" + index);
    std::ofstream(directory + "/" + index + "/size") << size;
  }
  std::filesystem::create_directory(directory + "/power");  // without a size
  EXPECT_EQ(LastLevelCacheBytes(directory), 3 << 20);
}

TEST(MachineRatesTest, AreMeasuredQuickly) {
  const auto start = std::chrono::steady_clock::now();
  const MachineRates rates = MeasureMachineRates(2, uint64_t{1} << 30);
  const auto taken = std::chrono::steady_clock::now() - start;
  EXPECT_GT(rates.read_bytes_per_second, 1e7);
  EXPECT_GT(rates.operations_per_second, 1e7);
  EXPECT_LT(taken, std::chrono::seconds(5)) << "it takes half a second on a machine of its own";
}

}  // namespace
}  // namespace sauva
