#pragma once
// Pages' vectors, packed, held once, and searched by all threads.
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "retrieval/max_sim.h"

namespace pg {

struct PageHit {
  int64_t page;
  double score;
};

// One thread adds, removes and takes snapshots; snapshots are searched by any thread meanwhile.
class PageStore {
  struct Entry {
    uint64_t offset;   // in the chunk's data
    uint32_t tokens;
    std::atomic<bool> removed;
  };
  // Never moves: a snapshot reads what was there when it was taken, while later pages are written behind it.
  struct Chunk {
    int64_t firstPage, pages = 0, maxPages;
    size_t used = 0, capacity;
    std::unique_ptr<uint8_t[]> data;
    std::unique_ptr<Entry[]> entries;
  };

 public:
  PageStore(VectorType type, int64_t dims);

  // Copies; the page's number, from 0. Rows of bits are widened to whole words.
  int64_t add(const Vectors& page);
  void remove(int64_t page);  // its number stays taken; its memory is freed with the store
  void clear();               // numbers begin at 0 again

  VectorType type() const { return type_; }
  int64_t dims() const { return dims_; }
  int64_t pages() const { return pages_; }
  int64_t removed() const { return removed_; }
  uint64_t bytes() const { return bytes_; }   // allocated

  class Snapshot {
   public:
    // The best `limit` pages of [begin, end), best first, the lower number first where scores are equal. The same
    // whatever the number of threads.
    std::vector<PageHit> search(const MaxSimQuery& query, int64_t begin, int64_t end, int64_t limit,
                                ThreadPool& pool) const;
    // Of the pages named, in their order; NaN for removed ones.
    std::vector<double> score(const MaxSimQuery& query, const std::vector<int64_t>& pages, ThreadPool& pool) const;
    int64_t pages() const { return pages_; }

   private:
    friend class PageStore;
    // false: removed
    bool find(int64_t page, Vectors* vectors) const;
    VectorType type_;
    int64_t dims_, pages_;
    std::vector<std::shared_ptr<const Chunk>> chunks_;
  };
  Snapshot snapshot() const;

 private:
  Chunk& chunkFor(size_t bytes);
  VectorType type_;
  int64_t dims_, pages_ = 0, removed_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::shared_ptr<Chunk>> chunks_;
};

}  // namespace pg
