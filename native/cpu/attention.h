#pragma once
// Attention in tiles of one page of keys with an online softmax: no score matrix larger than a tile exists.
//
// Prefill and vision: up to kStates query rows (of all heads that share the keys) per work item, so that a tile of
// keys is packed once for many rows. Decoding: one row of a sequence, its keys split into pieces of fixed length that
// threads take independently and that are combined in order, so that the result does not depend on the threads.
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "device/device.h"

namespace pg {

class Attention {
 public:
  Attention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), workers_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  void paged(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap);
  void dense(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale);

 private:
  struct Worker {
    Scratch queries, keys, values, scores, acc, wide;
  };
  // Which of a tile's keys [from, to) a query row sees.
  struct Range {
    int64_t from, to;
  };
  // Query rows with their running softmax: acc[row][padded headDim], the last tile of rows filled up.
  struct State {
    int64_t rows, headDim, padded;   // padded: headDim rounded up to 16
    float *queries, *acc;            // queries[tile][headDim][tileTokens]
    float *max, *sum;                // [rows rounded up]
  };

  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  void prefill(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap);
  void decode(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap);

  State begin(Worker& worker, int64_t rows, int64_t headDim) const;
  // Folds `count` keys (rows of f32, f16 or bf16) and values [count][padded] into the state. seen(row) gives the Range.
  template <class Seen>
  void fold(Worker& worker, State& state, DType keyType, const uint8_t* keys, size_t keyStride, const float* values, int64_t count,
            float scale, float softcap, const Seen& seen) const;
  // One row of scores of a tile becomes probabilities; returns the factor for what was accumulated before.
  float softmaxRow(float* scores, int64_t count, Range range, float scale, float softcap, float& max, float& sum) const;
  void finish(float* out, const State& state, int64_t row) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  std::vector<int64_t> firstItem_;
  Scratch partial_;
};

}  // namespace pg
