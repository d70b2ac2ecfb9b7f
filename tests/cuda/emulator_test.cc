// The emulator that kernels are tested on: what it computes, and that it stops what would be
// undefined on a device.
#include "tests/cuda/emulator/emulator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/half.h"
#include "simt_target.h"

namespace sauva::cuda {
namespace {

void Reverse(int* values) {
  auto* shared = reinterpret_cast<int*>(DynamicShared());
  const int thread = static_cast<int>(threadIdx.x);
  const int count = static_cast<int>(blockDim.x);
  int* block = values + static_cast<int>(blockIdx.x) * count;
  shared[thread] = block[thread];
  SyncThreads();
  block[thread] = shared[count - 1 - thread];
}

TEST(EmulatorTest, BlocksShareMemoryAcrossABarrier) {
  std::vector<int> values(4 * 96);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i);
  Launch(Reverse, {.grid = {4, 1, 1}, .threads = 96, .shared_bytes = 96 * 4}, values.data());
  for (int i = 0; i < 4 * 96; ++i)
    EXPECT_EQ(values[static_cast<size_t>(i)], i / 96 * 96 + 95 - i % 96);
}

void WithoutBarrier(int* differing) {
  auto* shared = reinterpret_cast<int*>(DynamicShared());
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = thread;
  const int neighbour = shared[(thread + 1) % static_cast<int>(blockDim.x)];
  if (neighbour != (thread + 1) % static_cast<int>(blockDim.x)) ++*differing;
}

TEST(EmulatorTest, AMissingBarrierShows) {
  int differing = 0;
  Launch(WithoutBarrier, {.grid = {6, 1, 1}, .threads = 64, .shared_bytes = 64 * 4}, &differing);
  EXPECT_GT(differing, 0);
}

void SumOfWarp(int* sums) {
  int sum = static_cast<int>(threadIdx.x);
  for (int mask = 16; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
  sums[threadIdx.x] = sum;
}

TEST(EmulatorTest, LanesExchangeWithinTheirWarpOnly) {
  std::vector<int> sums(64);
  Launch(SumOfWarp, {.grid = {1, 1, 1}, .threads = 64}, sums.data());
  for (int i = 0; i < 64; ++i)
    EXPECT_EQ(sums[static_cast<size_t>(i)], i < 32 ? 496 : 496 + 32 * 32);
}

void VoteAndShift(uint32_t* votes, int* shifted) {
  const int lane = static_cast<int>(threadIdx.x);
  votes[lane] = Ballot(lane % 3 == 0);
  shifted[lane] = ShuffleDown(lane, 8);
}

TEST(EmulatorTest, VotesAndShiftsAreThoseOfADevice) {
  std::vector<uint32_t> votes(32);
  std::vector<int> shifted(32);
  Launch(VoteAndShift, {.grid = {1, 1, 1}, .threads = 32}, votes.data(), shifted.data());
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(votes[static_cast<size_t>(i)], 0x49249249u);
    EXPECT_EQ(shifted[static_cast<size_t>(i)], i < 24 ? i + 8 : i);
  }
}

TEST(EmulatorTest, BytesAreChosenByNibbles) {
  EXPECT_EQ(ChooseBytes(0x33221100u, 0x77665544u, 0x7520u), 0x77552200u);
}

struct Matrices {
  int8_t a[16][32], b[32][8];
  int32_t product[16][8];
};

// The fragments as the PTX ISA lays them out, written out once more.
void Multiply(Matrices* m) {
  const int lane = static_cast<int>(threadIdx.x);
  const int row = lane / 4, four = lane % 4;
  uint32_t a[4] = {}, b[2] = {};
  for (int i = 0; i < 4; ++i) {
    const auto put = [i](uint32_t& to, int8_t code) {
      to |= static_cast<uint32_t>(static_cast<uint8_t>(code)) << (8 * i);
    };
    put(a[0], m->a[row][4 * four + i]);
    put(a[1], m->a[row + 8][4 * four + i]);
    put(a[2], m->a[row][16 + 4 * four + i]);
    put(a[3], m->a[row + 8][16 + 4 * four + i]);
    put(b[0], m->b[4 * four + i][row]);
    put(b[1], m->b[16 + 4 * four + i][row]);
  }
  int32_t sums[4] = {1, 1, 1, 1};
  MultiplyInt8(a, b, sums);
  for (int i = 0; i < 4; ++i) m->product[row + i / 2 * 8][2 * four + i % 2] = sums[i];
}

TEST(EmulatorTest, TheMatrixInstructionAddsAProductToItsAccumulator) {
  Matrices m;
  std::mt19937 random(1);
  for (auto& row : m.a)
    for (int8_t& code : row) code = static_cast<int8_t>(random());
  for (auto& row : m.b)
    for (int8_t& code : row) code = static_cast<int8_t>(random());
  Launch(Multiply, {.grid = {1, 1, 1}, .threads = 32}, &m);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      int expected = 1;
      for (int k = 0; k < 32; ++k) expected += m.a[i][k] * m.b[k][j];
      EXPECT_EQ(m.product[i][j], expected);
    }
  }
}

struct HalfMatrices {
  uint16_t a[16][16], b[16][8];
  float product[16][8];
};

// The same of 16-bit elements.
template <void (*multiply)(const uint32_t (&)[4], const uint32_t (&)[2], float (&)[4])>
void MultiplyHalves(HalfMatrices* m) {
  const int lane = static_cast<int>(threadIdx.x);
  const int row = lane / 4, four = lane % 4;
  const auto pair = [](uint16_t low, uint16_t high) {
    return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
  };
  const int k = 2 * four;
  const uint32_t a[4] = {
      pair(m->a[row][k], m->a[row][k + 1]), pair(m->a[row + 8][k], m->a[row + 8][k + 1]),
      pair(m->a[row][k + 8], m->a[row][k + 9]), pair(m->a[row + 8][k + 8], m->a[row + 8][k + 9])};
  const uint32_t b[2] = {pair(m->b[k][row], m->b[k + 1][row]),
                         pair(m->b[k + 8][row], m->b[k + 9][row])};
  float sums[4] = {1, 1, 1, 1};
  multiply(a, b, sums);
  for (int i = 0; i < 4; ++i) m->product[row + i / 2 * 8][2 * four + i % 2] = sums[i];
}

TEST(EmulatorTest, TheMatrixInstructionsOfHalvesAddAProductToTheirAccumulator) {
  // Integers, so that all sums are exact.
  float a[16][16], b[16][8];
  std::mt19937 random(2);
  const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 201) - 100); };
  for (auto& row : a)
    for (float& x : row) x = draw();
  for (auto& row : b)
    for (float& x : row) x = draw();
  const auto bf16 = [](float x) { return static_cast<uint16_t>(BitsOf(x) >> 16); };
  for (const bool is_f16 : {true, false}) {
    HalfMatrices m;
    for (int i = 0; i < 16; ++i) {
      for (int k = 0; k < 16; ++k) m.a[i][k] = is_f16 ? FloatToHalf(a[i][k]) : bf16(a[i][k]);
      for (int j = 0; j < 8; ++j) m.b[i][j] = is_f16 ? FloatToHalf(b[i][j]) : bf16(b[i][j]);
    }
    Launch(is_f16 ? MultiplyHalves<MultiplyF16> : MultiplyHalves<MultiplyBF16>,
           {.grid = {1, 1, 1}, .threads = 32}, &m);
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        float expected = 1;
        for (int k = 0; k < 16; ++k) expected += a[i][k] * b[k][j];
        EXPECT_EQ(m.product[i][j], expected);
      }
    }
  }
}

// Each thread copies a vector and reads its neighbour's: `left` groups are not waited for.
template <int kLeft>
void CopiesAndReads(const float4* from, float* first) {
  auto* shared = reinterpret_cast<float4*>(DynamicShared());
  const int thread = static_cast<int>(threadIdx.x);
  CopyAsync(shared + thread, from + thread);
  CommitCopies();
  CommitCopies();  // an empty group
  WaitForCopies<kLeft>();
  SyncThreads();
  first[thread] = shared[thread ^ 1].x;
  SyncThreads();
  WaitForCopies<0>();
}

TEST(EmulatorTest, CopiesAreThereOnceTheyAreWaitedForAndNotBefore) {
  std::vector<float4> from(64);
  for (size_t i = 0; i < from.size(); ++i) from[i] = {static_cast<float>(i), 0, 0, 0};
  const LaunchShape shape = {.grid = {1, 1, 1}, .threads = 64, .shared_bytes = 64 * 16};
  std::vector<float> first(64);
  Launch(CopiesAndReads<1>, shape, from.data(), first.data());
  for (int i = 0; i < 64; ++i) EXPECT_EQ(first[static_cast<size_t>(i)], static_cast<float>(i ^ 1));
  Launch(CopiesAndReads<2>, shape, from.data(), first.data());
  for (const float x : first) EXPECT_TRUE(std::isnan(x));
}

void NeverWaits(const float4* from) {
  CopyAsync(DynamicShared(), from);
  CommitCopies();
}
void CopiesBeyondTheEnd(const float4* from) { CopyAsync(DynamicShared() + 16, from); }

TEST(EmulatorDeathTest, CopiesThatNobodyWaitsForOrThatLeaveSharedMemoryEndTheProgram) {
  const float4 from = {};
  const LaunchShape shape = {.grid = {1, 1, 1}, .threads = 32, .shared_bytes = 16};
  EXPECT_DEATH(Launch(NeverWaits, shape, &from), "waits for its copies");
  EXPECT_DEATH(Launch(CopiesBeyondTheEnd, shape, &from), "end in the block's shared memory");
}

void SkipsTheBarrier() {
  if (threadIdx.x < 32) SyncThreads();
}
void SkipsTheExchange() {
  if (threadIdx.x % 2 == 0) ShuffleXor(1, 1);
}

TEST(EmulatorDeathTest, DivergentBarriersAndExchangesEndTheProgram) {
  const LaunchShape shape = {.grid = {1, 1, 1}, .threads = 64};
  EXPECT_DEATH(Launch(SkipsTheBarrier, shape), "comes to its barriers");
  EXPECT_DEATH(Launch(SkipsTheExchange, shape), "comes to its barriers");
  EXPECT_DEATH(Launch(SkipsTheBarrier, {.grid = {1, 1, 1}, .threads = 33}), "whole warps");
}

}  // namespace
}  // namespace sauva::cuda
