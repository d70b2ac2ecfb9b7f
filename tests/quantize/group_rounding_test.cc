#include "quantize/group_rounding.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/half.h"

namespace sauva {
namespace {

TEST(GroupRoundingTest, EveryNumberInRangeIsWithinHalfAStep) {
  const std::vector<float> values = {-0.7f, -0.31f, 0.0f, 0.02f, 0.45f, 1.1f};
  for (const auto kind : {GroupGrid::Kind::kSymmetric, GroupGrid::Kind::kZeroFromAny,
                          GroupGrid::Kind::kZeroFromOne}) {
    for (const int bits : {3, 4}) {
      const GroupGrid grid = GroupGrid::Of(values, bits, kind);
      EXPECT_EQ(HalfToFloat(FloatToHalf(grid.scale)), grid.scale) << "scales are of f16";
      for (const float value : values) {
        // The end of a range may lie half a step further, where the zero point was rounded.
        EXPECT_NEAR(grid.Value(grid.Code(value)), value, 1.01f * grid.scale);
      }
      EXPECT_EQ(grid.Value(grid.Code(0)), 0.0f);
    }
  }
}

TEST(GroupRoundingTest, VersionOneOfGptqCannotHoldAZeroPointOfZero) {
  const std::vector<float> positive = {0.1f, 0.5f, 0.9f};
  EXPECT_EQ(GroupGrid::Of(positive, 4, GroupGrid::Kind::kZeroFromAny).zero, 0);
  EXPECT_EQ(GroupGrid::Of(positive, 4, GroupGrid::Kind::kZeroFromOne).zero, 1);
}

TEST(GroupRoundingTest, AGroupOfZerosHasAScaleThatIsNone) {
  const std::vector<float> zeros(32);
  for (const auto kind : {GroupGrid::Kind::kSymmetric, GroupGrid::Kind::kZeroFromAny,
                          GroupGrid::Kind::kZeroFromOne}) {
    const GroupGrid grid = GroupGrid::Of(zeros, 4, kind);
    EXPECT_EQ(grid.scale, 1.0f);
    EXPECT_EQ(grid.Value(grid.Code(0)), 0.0f);
  }
}

}  // namespace
}  // namespace sauva
