#pragma once
// Attention in tiles of one page of keys with an online softmax: no score matrix larger than a tile exists.
//
// Prefill and vision: keys and values are unpacked once; then a work item is a block of query rows (of all heads that
// share the keys). Decoding: one row of a sequence, its keys split into pieces of fixed length that
// threads take independently and that are combined in order, so that the result does not depend on the threads.
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/cpu_memory.h"
#include "cpu/kernels/common/kernels.h"
#include "cpu/query_block.h"
#include "cpu/scratch.h"
#include "device/device.h"

namespace pg {

// An AttentionJob, resolved to the host's memory.
struct PagedJob {
  HostView out;
  ConstHostView q;
  const KvLayout* layout;
  const uint64_t* pages;   // addresses
  int64_t position;        // of the first row
  AttentionMask mask;

  const uint8_t* head(int64_t page, int64_t layer, int64_t value, int64_t kvHead) const {
    return hostPointer(pages[page]) + layout->headOffset(layer, value, kvHead);
  }
  int64_t keyEnd() const { return mask.end(position + q.rows - 1); }
};

class Attention {
 public:
  Attention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), tiles_(kernels) {
    workers_.reserve(size_t(pool.threads()));
    for (int i = 0; i < pool.threads(); ++i) workers_.emplace_back(kernels);
  }

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  void paged(std::span<const PagedJob> jobs, const AttentionParams& params);
  void dense(HostView out, ConstHostView q, ConstHostView k, ConstHostView v, int64_t heads, float scale,
             Precision precision);

 private:
  struct Worker {
    explicit Worker(const Kernels& kernels) : block(kernels) {}
    QueryBlock block;                     // of prefill and vision
    std::vector<const float*> queries;
    std::vector<SeenKeys> seen;
    Scratch values, scores, acc;          // of decoding
  };

  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  void prefill(std::span<const PagedJob> jobs, const AttentionParams& params);
  void packKeys(std::span<const PagedJob> jobs, int64_t layer);
  void prefillRows(const PagedJob& job, int64_t firstTile, int64_t rowBegin, int64_t kvHead,
                   const AttentionParams& params, Worker& worker) const;
  void decode(std::span<const PagedJob> jobs, const AttentionParams& params);
  void decodePiece(const PagedJob& job, int64_t piece, int64_t kvHead, const AttentionParams& params, Worker& worker,
                   float* results) const;
  void combine(const PagedJob& job, int64_t pieces, float* results) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  KvTiles tiles_;
  std::vector<int64_t> firstItem_, firstTile_;   // of each job
  Scratch partial_;
};

}  // namespace pg
