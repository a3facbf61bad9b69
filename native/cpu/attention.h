#pragma once
// Attention in tiles of one page of keys with an online softmax: no score matrix larger than a tile exists.
//
// Prefill and vision: keys and values are unpacked once; then a work item is a block of query rows (of all heads that
// share the keys). Decoding: one row of a sequence, its keys split into pieces of fixed length that
// threads take independently and that are combined in order, so that the result does not depend on the threads.
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/kernels/common/kernels.h"
#include "cpu/query_block.h"
#include "cpu/scratch.h"
#include "device/device.h"

namespace pg {

class Attention {
 public:
  Attention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), tiles_(kernels) {
    workers_.reserve(size_t(pool.threads()));
    for (int i = 0; i < pool.threads(); ++i) workers_.emplace_back(kernels);
  }

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  void paged(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap, Precision precision);
  void dense(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale, Precision precision);

 private:
  struct Worker {
    explicit Worker(const Kernels& kernels) : block(kernels) {}
    QueryBlock block;                     // of prefill and vision
    std::vector<const float*> queries;
    std::vector<SeenKeys> seen;
    Scratch values, scores, acc;          // of decoding
  };

  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  void prefill(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap, Precision precision);
  void decode(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap);

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  KvTiles tiles_;
  std::vector<int64_t> firstItem_, firstTile_;   // of each job
  Scratch partial_;
};

}  // namespace pg
