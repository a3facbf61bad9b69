#include "serve/cache/prefix_cache.h"

#include <algorithm>

#include "serve/sequence.h"

namespace pg {

const CachedPrefix* PrefixCache::find(const Job& job, const Prompt& prompt, const std::string& adapters) {
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const CachedPrefix& e) {
    return e.adapters == adapters &&
           std::equal(e.ids.begin(), e.ids.end(), prompt.ids.begin(), prompt.ids.begin() + prompt.prefix) &&
           e.job->request.images == job.request.images;
  });
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return &entries_.front();
}

void PrefixCache::put(CachedPrefix prefix) {
  if (prefix.kv.pages() > maxPages_) return;
  pages_ += prefix.kv.pages();
  entries_.push_front(std::move(prefix));
  while (pages_ > maxPages_) {
    pages_ -= entries_.back().kv.pages();
    entries_.pop_back();
  }
}

}  // namespace pg
