#pragma once
// Finished prefixes (pictures and prompt) and their KV pages, for requests that ask the same again: more samples,
// beams, other suffixes to score. Never for another prompt: the prefix is bidirectional, so the prompt changes every K
// and V.
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "model/kv_cache.h"
#include "serve/prompt.h"

namespace pg {

struct Job;

struct CachedPrefix {
  std::shared_ptr<const Job> job;    // whose pictures and options it was made from
  std::vector<int32_t> ids;          // of the prefix
  std::string adapters;              // AdapterChoice::key
  KvSequence kv;
  std::vector<float> logits;         // [vocab], after the prefix's last token
};

class PrefixCache {
 public:
  explicit PrefixCache(int64_t maxPages) : maxPages_(maxPages) {}

  // nullptr: not there.
  const CachedPrefix* find(const Job& job, const Prompt& prompt, const std::string& adapters);
  void put(CachedPrefix prefix);

 private:
  int64_t maxPages_;
  int64_t pages_ = 0;
  std::list<CachedPrefix> entries_;  // most recent first; a handful
};

}  // namespace pg
