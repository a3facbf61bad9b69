#pragma once
// Attention in tiles with an online softmax: no score matrix larger than a tile exists.
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "device/device.h"

namespace pg {

class Attention {
 public:
  Attention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), scratch_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  void paged(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap);
  void dense(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale);

 private:
  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  struct Scratch {
    std::vector<float> keys, values;   // [kPageTokens, headDim]
    std::vector<float> max, sum;       // [rows]
    std::vector<float> acc;            // [rows, headDim]
  };

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Scratch> scratch_;
};

}  // namespace pg
