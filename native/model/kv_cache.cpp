#include "model/kv_cache.h"

#include <algorithm>

namespace pg {
namespace {

// Pages kept after a sequence ends, so that the next one of usual length finds its memory already mapped.
constexpr size_t kSparePages = 32;

}  // namespace

KvPool::Page KvPool::take() {
  if (used_ >= maxPages_)
    fail(Code::outOfMemory, "All ", maxPages_,
         " pages of the KV cache are in use. Raise maxSequences or lower contextSize");
  Buffer page;
  if (spare_.empty()) {
    page = allocate();
  } else {
    page = std::move(spare_.back());
    spare_.pop_back();
  }
  Page shared(new Buffer(std::move(page)), [this](Buffer* done) {
    --used_;
    if (spare_.size() < kSparePages) spare_.push_back(std::move(*done));
    delete done;
  });
  ++used_;
  return shared;
}

// What is in use did fit: that is what can be asked for.
Buffer KvPool::allocate() {
  try {
    return device_.allocate(layout_.pageBytes());
  } catch (const Error& e) {
    if (e.code() != Code::outOfMemory) throw;
    const int64_t tokens = used_ * kPageTokens;
    const size_t megabytes = (size_t(used_) * layout_.pageBytes()) >> 20;
    fail(Code::outOfMemory, "The KV cache holds ", tokens, " tokens of all requests together in ", megabytes,
         " MiB, and the system refuses more memory. So many fit: lower contextSize * maxSequences to that",
         layout_.type == DType::q8_0 ? "" : ", set kvCacheType to q8_0, which takes half of f16,",
         " or close other programs");
  }
}

KvPool::Page KvPool::copy(const Page& page) {
  Page own = take();
  const auto bytes = [&](const Page& p) { return p->view(DType::i8, 1, int64_t(layout_.pageBytes())); };
  device_.copy(bytes(own), bytes(page));
  return own;
}

KvSequence KvSequence::fork() const {
  KvSequence other(*pool_);
  other.pages_ = pages_;
  other.length_ = length_;
  other.writeTable(0);
  return other;
}

void KvSequence::grow(int64_t length) {
  if (length <= length_) return;
  int64_t last = length_ / kPageTokens;
  const bool shared = last < pages() && pages_[size_t(last)].use_count() > 1;
  if (shared) pages_[size_t(last)] = pool_->copy(pages_[size_t(last)]);  // about to write into a page that others read
  else last = pages();
  while (pages() * kPageTokens < length) pages_.push_back(pool_->take());
  if (last < pages()) writeTable(last);
  length_ = length;
}

// The device's addresses of pages [first, pages()).
void KvSequence::writeTable(int64_t first) {
  if (pages_.empty()) return;
  if (table_.bytes() < pages_.size() * sizeof(uint64_t)) {
    table_ = pool_->device_.allocate(std::max<size_t>(16, 2 * pages_.size()) * sizeof(uint64_t));
    first = 0;
  }
  std::vector<uint64_t> addresses;
  for (size_t i = size_t(first); i < pages_.size(); ++i) addresses.push_back(pages_[i]->memory()->address);
  pool_->device_.upload(table_.view(DType::i64, pages(), 1).slice(first, pages() - first), addresses.data());
}

}  // namespace pg
