#include "model/kv_cache.h"

namespace pg {
namespace {

// Pages kept after a sequence ends, so that the next one of usual length finds its memory already mapped.
constexpr size_t kSparePages = 32;

}  // namespace

Buffer KvPool::take() {
  if (used_ >= maxPages_) fail(Code::outOfMemory, "All ", maxPages_, " pages of the KV cache are in use. Raise maxSequences or lower contextSize");
  Buffer page;
  if (spare_.empty()) {
    page = device_.allocate(layout_.pageBytes());
  } else {
    page = std::move(spare_.back());
    spare_.pop_back();
  }
  ++used_;
  return page;
}

void KvPool::give(Buffer page) {
  --used_;
  if (spare_.size() < kSparePages) spare_.push_back(std::move(page));
}

void KvSequence::grow(int64_t length) {
  while (int64_t(pages_.size()) * kPageTokens < length) {
    pages_.push_back(pool_->take());
    data_.push_back(pages_.back().data());
  }
  length_ = std::max(length_, length);
}

void KvSequence::clear() {
  for (Buffer& page : pages_) pool_->give(std::move(page));
  pages_.clear();
  data_.clear();
  length_ = 0;
}

}  // namespace pg
