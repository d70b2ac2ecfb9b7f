#include "engine/block_pool.h"

#include <numeric>

#include "gtest/gtest.h"

namespace sauva {
namespace {

std::array<TokenId, kKvBlockTokens> TokensFrom(TokenId first) {
  std::array<TokenId, kKvBlockTokens> tokens;
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Takes a block, fills it with tokens after `parent` and publishes it.
ContentId Fill(BlockPool& pool, BlockId block, ContentId parent, TokenId first) {
  const ContentId id = pool.Announce(block, parent, TokensFrom(first));
  pool.Publish(block);
  return id;
}

TEST(BlockPoolTest, HandsOutEveryBlockOnceAndThenNone) {
  for (const int size : {1, 2, 17}) {
    BlockPool pool(size);
    std::vector<bool> seen(static_cast<size_t>(size), false);
    for (int i = 0; i < size; ++i) {
      const auto block = pool.Allocate();
      ASSERT_TRUE(block.has_value());
      EXPECT_FALSE(seen[static_cast<size_t>(*block)]);
      seen[static_cast<size_t>(*block)] = true;
    }
    EXPECT_FALSE(pool.Allocate().has_value());
    EXPECT_EQ(pool.num_free(), 0);
    pool.CheckInvariants();
  }
}

TEST(BlockPoolTest, FindsAPublishedTextAfterItsBlockWasReleased) {
  BlockPool pool(2);
  const BlockId block = *pool.Allocate();
  Fill(pool, block, kTextStart, 100);
  pool.Release(block);
  EXPECT_EQ(pool.num_free(), 2);
  const auto found = pool.Find(kTextStart, TokensFrom(100));
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->ready);
  EXPECT_EQ(found->block, block);
  pool.Retain(block);
  EXPECT_EQ(pool.num_free(), 1);
  pool.CheckInvariants();
}

TEST(BlockPoolTest, ReusesEmptyBlocksBeforeCachedOnesAndTheLongestUnusedFirst) {
  BlockPool pool(3);
  const BlockId a = *pool.Allocate();
  const BlockId b = *pool.Allocate();
  const BlockId empty = *pool.Allocate();
  Fill(pool, a, kTextStart, 1);
  Fill(pool, b, kTextStart, 2);
  pool.Release(b);
  pool.Release(a);
  pool.Release(empty);
  EXPECT_EQ(pool.Allocate(), empty);
  EXPECT_EQ(pool.Allocate(), b);
  EXPECT_FALSE(pool.Find(kTextStart, TokensFrom(2)).has_value());
  EXPECT_TRUE(pool.Find(kTextStart, TokensFrom(1)).has_value());
  pool.CheckInvariants();
}

TEST(BlockPoolTest, TellsEqualTokensAfterDifferentTextsApart) {
  BlockPool pool(4);
  const ContentId first = Fill(pool, *pool.Allocate(), kTextStart, 1);
  const ContentId second = Fill(pool, *pool.Allocate(), kTextStart, 2);
  const BlockId after_first = *pool.Allocate();
  Fill(pool, after_first, first, 7);
  EXPECT_EQ(pool.Find(first, TokensFrom(7))->block, after_first);
  EXPECT_FALSE(pool.Find(second, TokensFrom(7)).has_value());
  EXPECT_FALSE(pool.Find(kTextStart, TokensFrom(7)).has_value());
}

TEST(BlockPoolTest, ForgetsAnAnnouncedTextWhoseWriterGaveUp) {
  BlockPool pool(2);
  const BlockId block = *pool.Allocate();
  pool.Announce(block, kTextStart, TokensFrom(1));
  EXPECT_FALSE(pool.Find(kTextStart, TokensFrom(1))->ready);
  pool.Release(block);
  EXPECT_FALSE(pool.Find(kTextStart, TokensFrom(1)).has_value());
  pool.CheckInvariants();
}

TEST(BlockPoolTest, KeepsTheFirstOfTwoBlocksWithTheSameText) {
  BlockPool pool(2);
  const BlockId first = *pool.Allocate();
  const BlockId second = *pool.Allocate();
  const ContentId id = Fill(pool, first, kTextStart, 1);
  EXPECT_EQ(Fill(pool, second, kTextStart, 1), id);
  pool.Release(second);
  EXPECT_EQ(pool.Find(kTextStart, TokensFrom(1))->block, first);
  EXPECT_EQ(pool.Allocate(), second) << "it held no text of its own";
  pool.CheckInvariants();
}

TEST(BlockPoolTest, NeverFindsAChildOfAForgottenText) {
  BlockPool pool(2);
  const BlockId parent = *pool.Allocate();
  const BlockId child = *pool.Allocate();
  const ContentId text = Fill(pool, parent, kTextStart, 1);
  Fill(pool, child, text, 2);
  pool.Release(parent);
  const BlockId other = *pool.Allocate();
  const ContentId again = Fill(pool, other, kTextStart, 1);
  EXPECT_NE(again, text);
  EXPECT_FALSE(pool.Find(again, TokensFrom(2)).has_value());
}

TEST(BlockPoolDeathTest, DiesWhenABlockIsReleasedTwice) {
  BlockPool pool(1);
  const BlockId block = *pool.Allocate();
  pool.Release(block);
  EXPECT_DEATH(pool.Release(block), "once per reference");
}

}  // namespace
}  // namespace sauva
