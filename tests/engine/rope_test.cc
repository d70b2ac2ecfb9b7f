#include "engine/rope.h"

#include "gtest/gtest.h"

namespace sauva {
namespace {

// Expected values: transformers' formulas in Python, in double from f32 powers.
void ExpectFrequencies(const RopeSpec& rope, const std::vector<float>& expected) {
  const std::vector<float> found = InverseFrequencies(rope);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_FLOAT_EQ(found[i], expected[i]) << i;
}

TEST(RopeTest, DefaultFrequenciesFallGeometrically) {
  ExpectFrequencies({.theta = 10000, .rotary_dims = 8},
                    {1.0f, 0.100000001f, 0.00999999978f, 0.00100000005f});
}

TEST(RopeTest, LinearScalingDividesThem) {
  ExpectFrequencies({.theta = 10000, .rotary_dims = 8, .linear_factor = 4},
                    {0.25f, 0.0250000004f, 0.00249999994f, 0.000250000012f});
}

TEST(RopeTest, Llama3ScalingKeepsFastOnesAndSlowsTheRest) {
  RopeSpec rope = {.theta = 500000, .rotary_dims = 16};
  rope.llama3 = RopeLlama3Scaling{};
  ExpectFrequencies(rope, {1.0f, 0.193922758f, 0.0376060307f, 0.00729266508f, 0.000524846055f,
                           3.42810235e-05f, 6.64786967e-06f, 1.28917316e-06f});
}

}  // namespace
}  // namespace sauva
