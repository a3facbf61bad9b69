#pragma once
// KV cache in pages of kPageTokens tokens, taken when a sequence grows and given back when it ends.
#include <vector>

#include "device/device.h"

namespace pg {

class KvPool {
 public:
  // `maxPages`: the limit over all sequences.
  KvPool(Device& device, const KvLayout& layout, int64_t maxPages) : device_(device), layout_(layout), maxPages_(maxPages) {}

  const KvLayout& layout() const { return layout_; }
  int64_t freePages() const { return maxPages_ - used_; }
  int64_t usedPages() const { return used_; }
  // Memory of pages kept for reuse; used ones not counted.
  void trim() { spare_.clear(); }

 private:
  friend class KvSequence;
  Buffer take();
  void give(Buffer page);

  Device& device_;
  KvLayout layout_;
  int64_t maxPages_;
  int64_t used_ = 0;
  std::vector<Buffer> spare_;
};

// One sequence's tokens. Owns its pages.
class KvSequence {
 public:
  explicit KvSequence(KvPool& pool) : pool_(&pool) {}
  ~KvSequence() { clear(); }
  KvSequence(KvSequence&& o) noexcept : pool_(o.pool_), pages_(std::move(o.pages_)), data_(std::move(o.data_)), length_(o.length_) { o.length_ = 0; }
  KvSequence& operator=(KvSequence&&) = delete;

  // Makes room for tokens up to `length`. Fails with outOfMemory.
  void grow(int64_t length);
  void clear();
  int64_t length() const { return length_; }   // tokens there is room for and that were announced by grow()
  KvView view() const { return {&pool_->layout(), data_.data()}; }

 private:
  KvPool* pool_;
  std::vector<Buffer> pages_;
  std::vector<uint8_t*> data_;
  int64_t length_ = 0;
};

}  // namespace pg
