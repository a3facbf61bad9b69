#pragma once
// What a model will take of a device's memory, told by its files before anything is loaded.
#include <cstdint>
#include <string>

#include "serve/load/load_options.h"

namespace pg {

// Prefixes kept for another request about the same pictures with the same prompt: two of usual length.
inline constexpr int64_t kKeptPrefixes = 2, kPromptTokens = 128;

struct LoadPlan {
  uint64_t weights = 0;
  uint64_t scratch = 0;      // of one request at a time, with features and logits
  uint64_t kvPerToken = 0;
  uint64_t kvTokens = 0;     // of all sequences and kept prefixes
  int64_t contextSize = 0, maxSequences = 0;

  uint64_t cache() const { return kvPerToken * kvTokens; }
  uint64_t total() const { return weights + scratch + cache(); }
  // For an error: what is asked of a device that has `free` bytes, and what would fit.
  std::string advice(uint64_t free) const;
};

// Fails as loading would where the files are no model.
LoadPlan planLoad(const LoadOptions& options);

}  // namespace pg
