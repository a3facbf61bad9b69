#pragma once
// KV cache in pages of kPageTokens tokens, taken when a sequence grows and given back when nobody uses them.
#include <atomic>
#include <memory>
#include <vector>

#include "device/device.h"

namespace pg {

class KvPool {
 public:
  // `maxPages`: the limit over all sequences and kept prefixes.
  KvPool(Device& device, const KvLayout& layout, int64_t maxPages)
      : device_(device), layout_(layout), maxPages_(maxPages) {}

  const KvLayout& layout() const { return layout_; }
  int64_t freePages() const { return maxPages_ - used_; }
  // From any thread; a shared page counts once.
  int64_t usedPages() const { return used_; }
  int64_t maxPages() const { return maxPages_; }

 private:
  friend class KvSequence;
  using Page = std::shared_ptr<Buffer>;
  Page take();
  Buffer allocate();
  Page copy(const Page& page);

  Device& device_;
  KvLayout layout_;
  int64_t maxPages_;
  std::atomic<int64_t> used_{0};
  std::vector<Buffer> spare_;   // given back, kept for the next sequence
};

// One sequence's tokens. Forks share pages until one of them writes.
class KvSequence {
 public:
  explicit KvSequence(KvPool& pool) : pool_(&pool) {}
  KvSequence(KvSequence&&) = default;
  KvSequence& operator=(KvSequence&&) = default;

  // The same tokens again, without a copy.
  KvSequence fork() const;
  // Makes room to write the tokens from length() up to `length`. Fails with outOfMemory.
  void grow(int64_t length);
  int64_t length() const { return length_; }
  int64_t pages() const { return int64_t(pages_.size()); }
  // Valid until it grows.
  KvView view() const { return {&pool_->layout(), table_.view(DType::i64, pages(), 1), length_}; }

 private:
  void writeTable(int64_t first);

  KvPool* pool_;
  std::vector<KvPool::Page> pages_;
  Buffer table_;   // their addresses
  int64_t length_ = 0;
};

}  // namespace pg
