#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/stage.h"

namespace sauva {

// Names the text that ends with a block: its own 16 tokens and all before them. Ids are
// never used twice, so an id that outlives its block finds nothing.
using ContentId = uint64_t;
inline constexpr ContentId kTextStart = 0;  // parent of a text's first block

using BlockTokens = std::span<const TokenId, kKvBlockTokens>;

// Hands out the KV blocks of a pipeline, counts who refers to them, and remembers what the
// unused ones hold until they are needed. A block id stands for the same 16 tokens in
// every KV group and on every stage.
//
// Texts are found by (content of the block before, the 16 tokens themselves) and not by a
// hash of them, so two texts cannot be taken for one another.
// Thread: its owner's.
class BlockPool {
 public:
  struct Content {
    ContentId id = kTextStart;
    BlockId block = 0;
    bool ready = false;  // computed; else a step has still to write it
  };

  explicit BlockPool(int num_blocks);

  // A block with one reference and no content: one that holds nothing if there is one,
  // else the one unused for the longest time, whose content is forgotten. Nothing when
  // every block is referred to.
  std::optional<BlockId> Allocate();

  // One reference more to a block found by Find; takes it back if it was unused.
  void Retain(BlockId block);

  // One reference less. The last one leaves the block to be reused; what it holds can be
  // found until then if it was published, and is forgotten at once if it was not.
  void Release(BlockId block);

  // The block that holds `tokens` after the text `parent`, or is about to.
  std::optional<Content> Find(ContentId parent, BlockTokens tokens) const;

  // Says that `block` is about to hold `tokens` after the text `parent`, and returns the
  // name of that text. When another block has it already the name is that one's and
  // `block` stays private.
  ContentId Announce(BlockId block, ContentId parent, BlockTokens tokens);

  // The step that wrote the block is done: its content, if it was announced, may be shared.
  void Publish(BlockId block);

  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  int num_free() const { return num_free_; }  // referred to by nobody
  int references(BlockId block) const { return at(block).references; }

  // Every invariant the pool can check of itself.
  void CheckInvariants() const;

 private:
  struct Key {
    ContentId parent = kTextStart;
    std::array<TokenId, kKvBlockTokens> tokens{};
    bool operator==(const Key&) const = default;
    template <class H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.parent, key.tokens);
    }
  };
  struct Block {
    int references = 0;
    bool has_content = false;
    Key key;  // with has_content: where contents_ has it
    BlockId previous = -1;
    BlockId next = -1;
  };

  static Key MakeKey(ContentId parent, BlockTokens tokens);
  Block& at(BlockId block);
  const Block& at(BlockId block) const;
  void LinkFirst(BlockId block);
  void LinkLast(BlockId block);
  void Unlink(BlockId block);
  void Forget(BlockId block);

  std::vector<Block> blocks_;
  // Blocks nobody refers to, doubly linked: the next to be reused is the first.
  BlockId first_ = -1;
  BlockId last_ = -1;
  int num_free_ = 0;
  ContentId next_content_ = 1;
  absl::flat_hash_map<Key, Content> contents_;
};

}  // namespace sauva
