#include "engine/block_pool.h"

#include <algorithm>

#include "base/check.h"

namespace sauva {

BlockPool::BlockPool(int num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  Check(num_blocks > 0, "a pool has at least one block");
  contents_.reserve(blocks_.size());
  for (BlockId id = 0; id < num_blocks; ++id) LinkLast(id);
}

std::optional<BlockId> BlockPool::Allocate() {
  if (first_ < 0) return std::nullopt;
  const BlockId id = first_;
  Unlink(id);
  Forget(id);
  at(id).references = 1;
  return id;
}

void BlockPool::Retain(BlockId id) {
  Block& block = at(id);
  if (block.references == 0) {
    Check(block.has_content, "an unused block is taken back for its content only");
    Unlink(id);
  }
  ++block.references;
}

void BlockPool::Release(BlockId id) {
  Block& block = at(id);
  Check(block.references > 0, "a block is released once per reference");
  if (--block.references > 0) return;
  if (block.has_content && !contents_.at(block.key).ready) Forget(id);
  if (block.has_content) {
    LinkLast(id);
  } else {
    LinkFirst(id);
  }
}

std::optional<BlockPool::Content> BlockPool::Find(ContentId parent, BlockTokens tokens) const {
  const auto it = contents_.find(MakeKey(parent, tokens));
  if (it == contents_.end()) return std::nullopt;
  return it->second;
}

ContentId BlockPool::Announce(BlockId id, ContentId parent, BlockTokens tokens) {
  Block& block = at(id);
  Check(block.references == 1 && !block.has_content, "only a private block gets content");
  const Key key = MakeKey(parent, tokens);
  const auto [it, inserted] = contents_.try_emplace(key);
  if (inserted) {
    it->second = {.id = next_content_++, .block = id, .ready = false};
    block.has_content = true;
    block.key = key;
  }
  return it->second.id;
}

void BlockPool::Publish(BlockId id) {
  const Block& block = at(id);
  Check(block.references > 0, "a block is published by its writer");
  if (block.has_content) contents_.at(block.key).ready = true;
}

BlockPool::Key BlockPool::MakeKey(ContentId parent, BlockTokens tokens) {
  Key key{.parent = parent};
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  return key;
}

BlockPool::Block& BlockPool::at(BlockId id) {
  Check(id >= 0 && id < num_blocks(), "a block id lies in the pool");
  return blocks_[static_cast<size_t>(id)];
}

const BlockPool::Block& BlockPool::at(BlockId id) const {
  Check(id >= 0 && id < num_blocks(), "a block id lies in the pool");
  return blocks_[static_cast<size_t>(id)];
}

void BlockPool::LinkFirst(BlockId id) {
  Block& block = at(id);
  block.previous = -1;
  block.next = first_;
  (first_ < 0 ? last_ : at(first_).previous) = id;
  first_ = id;
  ++num_free_;
}

void BlockPool::LinkLast(BlockId id) {
  Block& block = at(id);
  block.previous = last_;
  block.next = -1;
  (last_ < 0 ? first_ : at(last_).next) = id;
  last_ = id;
  ++num_free_;
}

void BlockPool::Unlink(BlockId id) {
  const Block& block = at(id);
  (block.previous < 0 ? first_ : at(block.previous).next) = block.next;
  (block.next < 0 ? last_ : at(block.next).previous) = block.previous;
  --num_free_;
}

void BlockPool::Forget(BlockId id) {
  Block& block = at(id);
  if (!block.has_content) return;
  contents_.erase(block.key);
  block.has_content = false;
}

void BlockPool::CheckInvariants() const {
  int linked = 0;
  BlockId previous = -1;
  for (BlockId id = first_; id >= 0; id = at(id).next) {
    Check(at(id).references == 0, "a linked block has no reference");
    Check(at(id).previous == previous, "links agree in both directions");
    Check(++linked <= num_blocks(), "the list of unused blocks has no cycle");
    previous = id;
  }
  Check(previous == last_, "the list ends at its last block");
  Check(linked == num_free_, "the list holds every unused block");
  size_t with_content = 0;
  int unused = 0;
  for (BlockId id = 0; id < num_blocks(); ++id) {
    const Block& block = at(id);
    Check(block.references >= 0, "no reference count is negative");
    unused += block.references == 0;
    if (!block.has_content) continue;
    ++with_content;
    const auto it = contents_.find(block.key);
    Check(it != contents_.end() && it->second.block == id, "content and block agree");
    Check(it->second.ready || block.references == 1, "unfinished content has one writer");
  }
  Check(unused == num_free_, "every block is either referred to or unused");
  Check(with_content == contents_.size(), "no content without a block");
}

}  // namespace sauva
