#include "retrieval/page_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/math.h"

namespace pg {
namespace {

constexpr size_t kAlign = 64;
// A chunk takes an eighth of what is there already, within these bounds.
constexpr size_t kLeastChunk = size_t(1) << 20, kLargestChunk = size_t(64) << 20;
constexpr int64_t kChunkPages = 4096;
// Pages that a thread takes at a time.
constexpr int64_t kGrain = 16;

size_t aligned(size_t bytes) { return roundUp(bytes, kAlign); }

// As stored: rows of bits in whole words.
size_t storedRow(VectorType type, int64_t dims) {
  return size_t(type == VectorType::binary ? bitWords(dims) * 8 : rowBytes(type, dims));
}

bool better(const PageHit& a, const PageHit& b) { return a.score != b.score ? a.score > b.score : a.page < b.page; }

// Keeps the best `limit` in a heap whose front is the worst of them.
void offer(std::vector<PageHit>& heap, const PageHit& hit, size_t limit) {
  if (heap.size() == limit) {
    if (!better(hit, heap.front())) return;
    std::pop_heap(heap.begin(), heap.end(), better);
    heap.back() = hit;
  } else {
    heap.push_back(hit);
  }
  std::push_heap(heap.begin(), heap.end(), better);
}

}  // namespace

PageStore::PageStore(VectorType type, int64_t dims) : type_(type), dims_(dims) {
  if (dims < 1 || dims > kMaxVectorDims)
    fail(Code::invalidOption, "Expected 1 to ", kMaxVectorDims, " for dims but received ", dims);
}

PageStore::Chunk& PageStore::chunkFor(size_t bytes) {
  if (!chunks_.empty()) {
    Chunk& last = *chunks_.back();
    if (last.pages < last.maxPages && last.capacity - last.used >= bytes) return last;
  }
  auto chunk = std::make_shared<Chunk>();
  chunk->firstPage = pages_;
  chunk->maxPages = kChunkPages;
  chunk->capacity = std::max(std::clamp(size_t(bytes_ / 8), kLeastChunk, kLargestChunk), bytes);
  // kAlign more: rows begin at cache lines wherever the memory does
  chunk->data.reset(new uint8_t[chunk->capacity + kAlign]);
  chunk->used = size_t(-reinterpret_cast<intptr_t>(chunk->data.get()) & intptr_t(kAlign - 1));
  chunk->capacity += chunk->used;
  chunk->entries.reset(new Entry[size_t(kChunkPages)]);
  chunks_.push_back(std::move(chunk));
  bytes_ += chunks_.back()->capacity + size_t(kChunkPages) * sizeof(Entry);
  return *chunks_.back();
}

int64_t PageStore::add(const Vectors& page) {
  if (page.tokens < 1 || page.tokens > std::numeric_limits<int32_t>::max())
    fail(Code::invalidOption, "Expected a page of at least one token but received ", page.tokens);
  const size_t rows = size_t(page.tokens) * storedRow(type_, dims_);
  const size_t scalesAt = (rows + 3) / 4 * 4;
  const size_t bytes = aligned(scalesAt + (type_ == VectorType::int8 ? size_t(page.tokens) * sizeof(float) : 0));
  Chunk& chunk = chunkFor(bytes);
  uint8_t* to = chunk.data.get() + chunk.used;
  if (type_ == VectorType::binary) widenBits(static_cast<const uint8_t*>(page.data), page.tokens, dims_, to);
  else std::memcpy(to, page.data, rows);
  if (type_ == VectorType::int8) std::memcpy(to + scalesAt, page.scales, size_t(page.tokens) * sizeof(float));
  Entry& entry = chunk.entries[size_t(chunk.pages)];
  entry.offset = chunk.used;
  entry.tokens = uint32_t(page.tokens);
  entry.removed.store(false, std::memory_order_relaxed);
  chunk.used += bytes;
  ++chunk.pages;
  return pages_++;
}

void PageStore::remove(int64_t page) {
  if (page < 0 || page >= pages_)
    fail(Code::invalidOption, "Expected a number below ", pages_, " for page but received ", page);
  const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), page,
                                      [](int64_t n, const auto& chunk) { return n < chunk->firstPage; });
  Chunk& chunk = **(after - 1);
  if (!chunk.entries[size_t(page - chunk.firstPage)].removed.exchange(true, std::memory_order_relaxed)) ++removed_;
}

void PageStore::clear() {
  chunks_.clear();
  pages_ = removed_ = 0;
  bytes_ = 0;
}

PageStore::Snapshot PageStore::snapshot() const {
  Snapshot snapshot;
  snapshot.type_ = type_;
  snapshot.dims_ = dims_;
  snapshot.pages_ = pages_;
  snapshot.chunks_.assign(chunks_.begin(), chunks_.end());
  return snapshot;
}

bool PageStore::Snapshot::find(int64_t page, Vectors* vectors) const {
  const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), page,
                                      [](int64_t n, const auto& chunk) { return n < chunk->firstPage; });
  const Chunk& chunk = **(after - 1);
  const Entry& entry = chunk.entries[size_t(page - chunk.firstPage)];
  if (entry.removed.load(std::memory_order_relaxed)) return false;
  const uint8_t* rows = chunk.data.get() + entry.offset;
  const size_t scalesAt = (entry.tokens * storedRow(type_, dims_) + 3) / 4 * 4;
  *vectors = {type_, int64_t(entry.tokens), dims_, rows,
              type_ == VectorType::int8 ? reinterpret_cast<const float*>(rows + scalesAt) : nullptr};
  return true;
}

std::vector<PageHit> PageStore::Snapshot::search(const MaxSimQuery& query, int64_t begin, int64_t end, int64_t limit,
                                                 ThreadPool& pool) const {
  end = std::min(end, pages_);
  limit = std::min(limit, end - begin);
  if (limit <= 0) return {};
  // all memory is taken here: the body must not throw
  struct Worker {
    std::vector<PageHit> best;
    std::vector<float> scratch;
  };
  std::vector<Worker> workers(size_t(pool.threads()));
  for (Worker& worker : workers) {
    worker.best.reserve(size_t(limit));
    worker.scratch.resize(query.scratchSize());
  }
  pool.forRange(end - begin, kGrain, [&](int64_t first, int64_t last, int number) {
    Worker& worker = workers[size_t(number)];
    Vectors vectors;
    for (int64_t page = begin + first; page < begin + last; ++page) {
      if (!find(page, &vectors)) continue;
      const double score = query.score(vectors, worker.scratch.data());
      // vectors that are not numbers come last: they would have no place in an order
      offer(worker.best, {page, std::isnan(score) ? -std::numeric_limits<double>::infinity() : score}, size_t(limit));
    }
  });
  std::vector<PageHit> hits;
  for (const Worker& worker : workers) hits.insert(hits.end(), worker.best.begin(), worker.best.end());
  std::sort(hits.begin(), hits.end(), better);
  if (int64_t(hits.size()) > limit) hits.resize(size_t(limit));
  return hits;
}

std::vector<double> PageStore::Snapshot::score(const MaxSimQuery& query, const std::vector<int64_t>& pages,
                                               ThreadPool& pool) const {
  for (const int64_t page : pages)
    if (page < 0 || page >= pages_)
      fail(Code::invalidOption, "Expected numbers below ", pages_, " for pages but received ", page);
  std::vector<double> scores(pages.size());
  std::vector<std::vector<float>> scratch(size_t(pool.threads()), std::vector<float>(query.scratchSize()));
  pool.forRange(int64_t(pages.size()), kGrain, [&](int64_t first, int64_t last, int worker) {
    Vectors vectors;
    for (int64_t i = first; i < last; ++i)
      scores[size_t(i)] = find(pages[size_t(i)], &vectors) ? query.score(vectors, scratch[size_t(worker)].data())
                                                           : std::numeric_limits<double>::quiet_NaN();
  });
  return scores;
}

}  // namespace pg
