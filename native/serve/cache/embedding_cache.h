#pragma once
// Recent pictures' features by content, on the device, so that a second question about a picture costs no vision pass.
#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "device/view.h"

namespace pg {

class EmbeddingCache {
 public:
  using Features = std::shared_ptr<const Buffer>;

  explicit EmbeddingCache(size_t maxBytes) : maxBytes_(maxBytes) {}

  // `adapters`: AdapterChoice::visionKey. nullptr: not there.
  Features find(const std::vector<uint8_t>& pixels, const std::string& adapters);
  void put(const std::vector<uint8_t>& pixels, const std::string& adapters, Features features);

 private:
  struct Entry {
    std::vector<uint8_t> pixels;   // compared byte for byte: a colliding hash must not answer with another picture
    std::string adapters;
    uint64_t hash;
    Features features;
    size_t bytes() const { return pixels.size() + features->bytes(); }
  };

  size_t maxBytes_;
  size_t bytes_ = 0;
  std::list<Entry> entries_;       // most recent first; a handful, so a list is enough
};

}  // namespace pg
