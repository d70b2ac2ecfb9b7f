// Attention over paged keys and values: cpu against reference, prefill against decode,
// windows, shared blocks, garbage in blocks nobody may see.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/factory.h"
#include "tests/kernels/kernel_testing.h"

namespace sauva {
namespace {

using testing::Candidate;
using testing::Candidates;
using testing::ExpectSameBits;
using testing::Matrix;
using testing::Random;
using testing::Step;
using testing::TestLimits;

constexpr DType kKvTypes[] = {DType::kF32, DType::kF16, DType::kI8};

struct Heads {
  int queries = 4;
  int keys = 2;
  int dim = 16;
  DType kv_type = DType::kF32;
  int window = 0;
};

// The keys, values and queries of a whole sequence, one row per position.
struct Sequence {
  Sequence(const Heads& heads, int length, uint32_t seed)
      : keys(1, 1), values(1, 1), queries(1, 1) {
    Random random(seed);
    keys = random.Rows(length, heads.keys * heads.dim);
    values = random.Rows(length, heads.keys * heads.dim);
    queries = random.Rows(length, heads.queries * heads.dim);
  }
  Matrix keys, values, queries;
};

Rows Slice(Rows rows, int first, int count) {
  return {rows.row(first), count, rows.columns, rows.stride};
}

// One sequence on one backend, fed in chunks.
class Attender {
 public:
  Attender(Backend& backend, const Heads& heads, std::vector<int32_t> blocks)
      : backend_(backend), heads_(heads), blocks_(std::move(blocks)) {
    const int pool = 1 + *std::max_element(blocks_.begin(), blocks_.end());
    auto cache = backend.AllocateKv({.num_blocks = pool,
                                     .num_kv_heads = heads.keys,
                                     .head_dim = heads.dim,
                                     .dtype = heads.kv_type});
    EXPECT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }

  // Writes keys and values of positions [first, first + count).
  void Write(Sequence& sequence, int first, int count) {
    const Step step({{.first_position = first, .tokens = count, .blocks = blocks_}}, TestLimits());
    backend_.UploadStep(step.table());
    backend_.WriteKv({.keys = Slice(sequence.keys.rows(), first, count),
                      .values = Slice(sequence.values.rows(), first, count),
                      .cache = cache_.get()});
  }

  // Runs positions [first, first + count) of the sequence as one step.
  void Feed(Sequence& sequence, int first, int count, Rows out) {
    Write(sequence, first, count);
    backend_.Attention({.queries = Slice(sequence.queries.rows(), first, count),
                        .cache = cache_.get(),
                        .num_heads = heads_.queries,
                        .score_scale = 1.0f / std::sqrt(static_cast<float>(heads_.dim)),
                        .window = heads_.window,
                        .out = Slice(out, first, count)});
  }

  Matrix FeedAll(Sequence& sequence, int chunk) {
    const int length = sequence.queries.num_rows();
    Matrix out(length, sequence.queries.num_columns());
    for (int first = 0; first < length; first += chunk) {
      Feed(sequence, first, std::min(chunk, length - first), out.rows());
    }
    return out;
  }

 private:
  Backend& backend_;
  const Heads heads_;
  const std::vector<int32_t> blocks_;
  std::unique_ptr<KvCache> cache_;
};

// Blocks of a sequence of `length` tokens, scattered over the pool.
std::vector<int32_t> ScatteredBlocks(int length) {
  const int count = (length + 15) / 16;
  std::vector<int32_t> blocks(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i)
    blocks[static_cast<size_t>(i)] = (count - i) * 2 % (2 * count + 1);
  return blocks;
}

// Expected values come from the reference once; each candidate is then compared with them.
class AttentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(reference_->Reserve(TestLimits(), 1024, 16).ok());
    for (const Candidate& candidate : Candidates()) {
      names_.push_back(candidate.name);
      cpus_.push_back(candidate.make());
      ASSERT_TRUE(cpus_.back()->Reserve(TestLimits(), 1024, 16).ok());
    }
  }
  static Matrix Run(Backend& backend, const Heads& heads, Sequence& sequence, int chunk) {
    const int length = sequence.queries.num_rows();
    return Attender(backend, heads, ScatteredBlocks(length)).FeedAll(sequence, chunk);
  }
  // Compares every candidate, fed in chunks of each given size, with the reference.
  void Compare(const Heads& heads, Sequence& sequence, const std::vector<int>& chunks,
               const std::string& what) {
    Matrix expected = Run(*reference_, heads, sequence, 100);
    for (size_t i = 0; i < cpus_.size(); ++i) {
      for (const int chunk : chunks) {
        Matrix actual = Run(*cpus_[i], heads, sequence, chunk);
        ExpectSameBits(expected, actual,
                       names_[i] + ", " + what + ", chunks of " + std::to_string(chunk));
        if (HasFatalFailure()) return;
      }
    }
  }

  std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<Backend>> cpus_;
};

TEST_F(AttentionTest, EqualsTheReferenceForAnyHeadsAndTypes) {
  for (const DType type : kKvTypes) {
    for (const int dim : {1, 8, 15, 16, 17, 64, 80, 100}) {
      for (const auto& [queries, keys] : {std::pair{1, 1}, {4, 2}, {6, 1}, {5, 5}}) {
        const Heads heads{.queries = queries, .keys = keys, .dim = dim, .kv_type = type};
        Sequence sequence(heads, 41, static_cast<uint32_t>(dim));
        Compare(heads, sequence, {41}, "head_dim " + std::to_string(dim));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(AttentionTest, PrefillEqualsDecodeInChunksOfAnySizeAcrossSpans) {
  const Heads heads{.queries = 1, .keys = 1, .dim = 20, .kv_type = DType::kF16};
  Sequence sequence(heads, 1030, 3);  // three spans of 512
  Compare(heads, sequence, {1, 33, 160}, "long sequence");
}

// Registers hold eight queries at most; groups of a KV head need not be of that size.
TEST_F(AttentionTest, GroupsOfAnySizeEqualTheReference) {
  for (const DType type : kKvTypes) {
    for (const int group : {3, 5, 6, 7, 8, 15, 33}) {
      const int dim = group % 2 == 0 ? 32 : 17;
      const Heads heads{.queries = 2 * group, .keys = 2, .dim = dim, .kv_type = type};
      Sequence sequence(heads, 70, static_cast<uint32_t>(group));
      Compare(heads, sequence, {1, 70}, std::to_string(group) + " heads of a KV head");
      if (HasFatalFailure()) return;
    }
  }
}

// Decode of one long sequence: threads share the spans of each head.
TEST_F(AttentionTest, OneTokenAtTheEndOfALongContextEqualsTheReference) {
  for (const DType type : kKvTypes) {
    for (const int window : {0, 700}) {
      const Heads heads{.queries = 16, .keys = 2, .dim = 32, .kv_type = type, .window = window};
      Sequence sequence(heads, 1590, 6);
      const std::vector<int32_t> blocks = ScatteredBlocks(1590);
      Matrix expected(1590, 16 * 32);
      Attender reference(*reference_, heads, blocks);
      for (int first = 0; first < 1589; first += 100) {
        reference.Write(sequence, first, std::min(100, 1589 - first));
      }
      reference.Feed(sequence, 1589, 1, expected.rows());
      for (size_t i = 0; i < cpus_.size(); ++i) {
        Matrix actual(1590, 16 * 32);
        Attender attender(*cpus_[i], heads, blocks);
        for (int first = 0; first < 1589; first += 100) {
          attender.Write(sequence, first, std::min(100, 1589 - first));
        }
        attender.Feed(sequence, 1589, 1, actual.rows());
        ExpectSameBits(expected, actual, names_[i] + ", window " + std::to_string(window));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(AttentionTest, WindowsOfAnySizeEqualTheReference) {
  for (const int window : {1, 2, 15, 16, 17, 40, 600}) {
    const Heads heads{.queries = 2, .keys = 2, .dim = 12, .window = window};
    Sequence sequence(heads, 700, 5);
    Compare(heads, sequence, {33, 160}, "window " + std::to_string(window));
    if (HasFatalFailure()) return;
  }
}

// A window frees the blocks behind it: their entries may name no block any more.
TEST_F(AttentionTest, BlocksBehindTheWindowAreNotRead) {
  const Heads heads{.queries = 2, .keys = 1, .dim = 16, .window = 20};
  Sequence sequence(heads, 640, 9);
  Matrix expected = Run(*reference_, heads, sequence, 128);
  std::vector<int32_t> blocks = ScatteredBlocks(640);
  std::fill(blocks.begin(), blocks.begin() + 620 / 16, -1000000);
  for (const auto& cpu : cpus_) {
    Attender attender(*cpu, heads, blocks);
    Matrix actual(640, 32);
    attender.Write(sequence, 620, 19);
    attender.Feed(sequence, 639, 1, actual.rows());
    for (int c = 0; c < 32; ++c) ASSERT_EQ(expected.at(639, c), actual.at(639, c));
  }
}

// Five sequences of different lengths as one step, beside each as a step of its own.
TEST_F(AttentionTest, ManySequencesInOneStepDoNotTouchEachOther) {
  const Heads heads{.queries = 4, .keys = 2, .dim = 32};
  std::vector<Step::Sequence> parts;
  Sequence joined(heads, 96, 0);
  Matrix expected(96, 128);
  int row = 0;
  int next_block = 0;
  for (const int length : {1, 16, 17, 60, 2}) {
    Sequence sequence(heads, length, static_cast<uint32_t>(length));
    Matrix alone = Run(*reference_, heads, sequence, length);
    std::vector<int32_t> blocks(static_cast<size_t>((length + 15) / 16));
    std::iota(blocks.begin(), blocks.end(), next_block);
    next_block += static_cast<int>(blocks.size());
    parts.push_back({.tokens = length, .blocks = blocks});
    for (int t = 0; t < length; ++t, ++row) {
      std::copy_n(sequence.keys.rows().row(t), 64, joined.keys.rows().row(row));
      std::copy_n(sequence.values.rows().row(t), 64, joined.values.rows().row(row));
      std::copy_n(sequence.queries.rows().row(t), 128, joined.queries.rows().row(row));
      std::copy_n(alone.rows().row(t), 128, expected.rows().row(row));
    }
  }
  const Step step(parts, TestLimits());
  for (size_t i = 0; i < cpus_.size(); ++i) {
    Backend& cpu = *cpus_[i];
    const auto cache =
        cpu.AllocateKv({.num_blocks = next_block, .num_kv_heads = 2, .head_dim = 32});
    ASSERT_TRUE(cache.ok());
    Matrix out(96, 128);
    cpu.UploadStep(step.table());
    cpu.WriteKv(
        {.keys = joined.keys.rows(), .values = joined.values.rows(), .cache = cache->get()});
    cpu.Attention({.queries = joined.queries.rows(),
                   .cache = cache->get(),
                   .num_heads = 4,
                   .score_scale = 1.0f / std::sqrt(32.0f),
                   .out = out.rows()});
    ExpectSameBits(expected, out, names_[i]);
  }
}

TEST_F(AttentionTest, UnseenGarbageInABlockChangesNothing) {
  const Heads heads{.queries = 2, .keys = 1, .dim = 16};
  Sequence sequence(heads, 20, 3);
  Sequence garbage(heads, 32, 4);
  for (int t = 0; t < 32; ++t) {
    for (int c = 0; c < 16; ++c) {
      garbage.keys.at(t, c) = std::numeric_limits<float>::quiet_NaN();
      garbage.values.at(t, c) = std::numeric_limits<float>::infinity();
    }
  }
  Matrix expected = Run(*reference_, heads, sequence, 20);
  for (size_t i = 0; i < cpus_.size(); ++i) {
    Attender attender(*cpus_[i], heads, ScatteredBlocks(32));
    attender.FeedAll(garbage, 32);
    Matrix actual = attender.FeedAll(sequence, 1);
    ExpectSameBits(expected, actual, names_[i]);
  }
}

TEST_F(AttentionTest, HugeAndUndefinedScoresEqualTheReference) {
  for (const float odd :
       {1e20f, -1e20f, 3e38f, std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const DType type : kKvTypes) {
      const Heads heads{.queries = 1, .keys = 1, .dim = 18, .kv_type = type};
      Sequence sequence(heads, 540, 8);
      for (const int position : {0, 37, 530}) sequence.keys.at(position, 2) = odd;
      sequence.values.at(300, 5) = odd;
      sequence.queries.at(100, 3) = odd;
      Compare(heads, sequence, {77}, "score of " + std::to_string(odd));
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace sauva
