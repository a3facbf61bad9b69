#include "serve/cache/embedding_cache.h"

#include <algorithm>
#include <cstring>

namespace pg {
namespace {

uint64_t hashOf(const std::vector<uint8_t>& bytes) {
  uint64_t h = 0x9e3779b97f4a7c15u ^ bytes.size();
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  for (; i < bytes.size(); ++i) h = (h ^ bytes[i]) * 0xff51afd7ed558ccdu;
  return h ^ (h >> 29);
}

}  // namespace

EmbeddingCache::Features EmbeddingCache::find(const std::vector<uint8_t>& pixels, const std::string& adapters) {
  const uint64_t hash = hashOf(pixels);
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) {
    return e.hash == hash && e.adapters == adapters && e.pixels == pixels;
  });
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return entry->features;
}

void EmbeddingCache::put(const std::vector<uint8_t>& pixels, const std::string& adapters, Features features) {
  entries_.push_front({pixels, adapters, hashOf(pixels), std::move(features)});
  bytes_ += entries_.front().bytes();
  while (bytes_ > maxBytes_ && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes();
    entries_.pop_back();
  }
}

}  // namespace pg
