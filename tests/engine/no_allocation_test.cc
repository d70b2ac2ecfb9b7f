// A decode step in steady state takes no heap memory.
#include "gtest/gtest.h"
#include "tests/engine/counting_new.h"
#include "tests/engine/decoding.h"

namespace sauva {
namespace {

using testing::Decoding;

struct Setup {
  int threads = 1;
  LoadFormat weights = LoadFormat::kStored;
  DType kv_type = DType::kF32;
};

class NoAllocationTest : public ::testing::TestWithParam<Setup> {};

TEST_P(NoAllocationTest, ADecodeStepTakesNoHeapMemory) {
  Decoding decoding(CpuFactory(GetParam().threads, InstructionSet::kAuto), GetParam().weights,
                    GetParam().kv_type);
  decoding.Prepare(0);
  decoding.Run();
  int64_t counted = 0;
  for (int position = Decoding::kPromptTokens; position < 100; ++position) {
    decoding.Prepare(position);
    const int64_t before = NumAllocations();
    decoding.Run();
    // The first decode step may still grow what keeps its size afterwards.
    if (position > Decoding::kPromptTokens) counted += NumAllocations() - before;
  }
  EXPECT_EQ(decoding.sampled().size(), static_cast<size_t>(Decoding::kSequences));
  EXPECT_EQ(counted, 0);
  const int64_t before = NumAllocations();
  ::operator delete(::operator new(1));
  EXPECT_EQ(NumAllocations() - before, 1) << "the count counts";
}

INSTANTIATE_TEST_SUITE_P(
    Setups, NoAllocationTest,
    ::testing::Values(Setup{}, Setup{.threads = 2},
                      Setup{.threads = 2, .weights = LoadFormat::kInt8, .kv_type = DType::kI8},
                      Setup{.threads = 2, .weights = LoadFormat::kInt4, .kv_type = DType::kF16},
                      Setup{.threads = 2, .weights = LoadFormat::kInt3},
                      Setup{.threads = 2, .weights = LoadFormat::kNf4, .kv_type = DType::kI8}));

}  // namespace
}  // namespace sauva
